"""Running a worker in two processes, and what the workers have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from mmsw.apis.cli import leave, run_reporting_errors

ROOT = Path(__file__).resolve().parents[2]


def run_in_two_processes(worker: str, *arguments: object) -> None:
    """Start a script of this folder under torchrun and see it succeed."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    environment['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'),
            *(str(Path(__file__).with_name(worker)), *map(str, arguments)),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def assert_same_in_both(tensors: Iterable[Tensor]) -> None:
    """Every process holds the same values; to be called by all of them."""
    flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
    everywhere = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(everywhere, flat)
    assert dist.get_world_size() == 2
    assert all(torch.equal(other, flat) for other in everywhere), 'ranks differ'


def work(main: Callable[..., None]) -> NoReturn:
    """Run a worker's main function with the arguments of the process, and end as the tools do."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    leave(run_reporting_errors(lambda: main(*sys.argv[1:])))
