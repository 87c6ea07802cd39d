"""Two processes that train together: they end together, with the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from tiny_run import tiny_config

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def in_two_processes(script: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Runs a script under torchrun, on the CPU."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    environment['PYTHONPATH'] = os.pathsep.join(map(str, (ROOT, HERE.parent)))
    launcher = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2')
    return subprocess.run(
        [*launcher, str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.ci
def test_guard_that_fails_in_one_process_stops_both(tmp_path: Path) -> None:
    done = in_two_processes(HERE / 'worker.py', 'guard', tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        assert 'are not zero in state_dict' in (tmp_path / f'error_{rank}').read_text()
    assert list(tmp_path.rglob('*.pth')) == []


@pytest.mark.slow
@pytest.mark.ci
def test_address_is_fetched_once_for_both(tmp_path: Path) -> None:
    model = MODELS.build(tiny_config(tmp_path).model)
    torch.save(model.state_dict(), tmp_path / 'start.pth')
    done = in_two_processes(HERE / 'worker.py', 'fetch', tmp_path)
    assert [path.name for path in tmp_path.glob('fetched_*')] == ['fetched_0']
    assert list(tmp_path.glob('copy_*')) == []
    # The second file is not there: one line from each process that comes so far, no traceback.
    assert f'error: checkpoint tape://{tmp_path}/absent.pth cannot be fetched' in done.stderr
    assert 'AssertionError' not in done.stderr
    assert 'exitcode  : 2' in done.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config file for tools/train.py."""
    cfg = tiny_config(tmp_path / 'work')
    cfg.custom_imports = dict(imports=['tiny_run'], allow_failed_imports=False)
    cfg.dump(tmp_path / 'config.py')
    return tmp_path / 'config.py'


def test_exit_codes_of_a_training(config: Path) -> None:
    train = (ROOT / 'tools' / 'train.py', config, '--launcher', 'pytorch')
    done = in_two_processes(*train)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (config.parent / 'work' / 'iter_2.pth').is_file()
    assert 'Traceback' not in done.stderr

    config.write_text(
        config.read_text()
        + "custom_hooks = [dict(type='SparsityReportHook', require_sparse=True)]\n"
    )
    done = in_two_processes(*train)
    assert done.returncode != 0
    assert 'error: the network is dense: nothing is pruned' in done.stderr
    assert 'exitcode  : 2' in done.stderr
    assert 'SparsityLostError' not in done.stderr, 'a traceback'
