"""Executing the runs of a benchmark one after the other, each in a process of its own."""

from __future__ import annotations

import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from mmsw.whole_file import write_whole

from ..files import read_json, write_json
from ..processes import clock, end, start
from ..runs import LOG, Failure, failure_of, result_of
from .hook import PROGRESS
from .plan import Run, TransferSettings, run_config

_POLL = 0.2  # seconds
_TELL = 30.0  # seconds between lines of progress inside of a run


def execute(
    runs: list[Run],
    settings: TransferSettings,
    progress: Callable[[str], None],
    finished: Callable[[], object],
) -> list[Failure]:
    """Train what is not finished.

    Args:
        runs: All runs, in order.
        settings: What was asked for.
        progress: Called with a line of text now and then.
        finished: Called after each run.

    Returns:
        What failed; the other runs went on.
    """
    failures = []
    begun = time.monotonic()
    to_do = [run for run in runs if result_of(run) is None]
    if len(to_do) < len(runs):
        progress(f'{len(runs) - len(to_do)} of {len(runs)} runs are finished already')
    for number, run in enumerate(to_do, len(runs) - len(to_do) + 1):
        left = _expected(to_do[to_do.index(run) :], runs)
        progress(
            f'[{number}/{len(runs)}] {run.name}: begins; elapsed {clock(time.monotonic() - begun)}'
            + (f', about {clock(left)} left' if left is not None else '')
        )
        failure = _train(run, settings, progress)
        if failure is None:
            result = result_of(run)
            scores = ', '.join(f'{name} {score:.2f}' for name, score in result['scores'].items())
            progress(
                f'[{number}/{len(runs)}] {run.name}: {scores}; '
                f'{result["seconds_per_iteration"]:.3f} s per iteration, '
                f'{clock(result["wall_seconds"])}'
            )
        else:
            failures.append(failure)
            progress(
                f'[{number}/{len(runs)}] {run.name}: FAILED with exit code {failure.code}; the end '
                f'of {failure.log}:\n{failure.tail}'
            )
        finished()
    return failures


def _train(run: Run, settings: TransferSettings, progress: Callable[[str], None]) -> Failure | None:
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / 'settings.json', run.settings)
    config = run.folder / 'config.py'
    write_whole(config, run_config(run, settings).dump)
    (run.folder / PROGRESS).unlink(missing_ok=True)
    log = run.folder / LOG
    with log.open('a', encoding='utf-8') as output:
        code = _supervise(_command(config, settings), output, run, progress)
    return failure_of(run, code)


def _command(config: Path, settings: TransferSettings) -> list[str]:
    distributed = settings.nproc > 1
    command = [sys.executable, *(_torchrun(settings.nproc) if distributed else [])]
    command += ['-m', 'mmsw.benchmarks.transfer.worker', str(config)]
    command += ['--launcher', 'pytorch'] if distributed else []
    command += ['--amp'] if settings.amp else []
    return command + (['--auto-scale-lr'] if settings.auto_scale_lr else [])


def _torchrun(nproc: int) -> list[str]:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    return [
        *('-m', 'torch.distributed.run', '--master_addr=127.0.0.1'),
        *(f'--master_port={port}', f'--nproc_per_node={nproc}'),
    ]


def _supervise(
    command: list[str], output: TextIO, run: Run, progress: Callable[[str], None]
) -> int:
    """Run a command, telling now and then how far it is; ends it when this process is told to."""
    process = start(command, output)
    begun = told = time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(_POLL)
            if time.monotonic() - told > _TELL:
                told = time.monotonic()
                progress(f'    {_state(run, told - begun)}')
        return process.returncode
    finally:
        end(process)


def _state(run: Run, seconds: float) -> str:
    state = read_json(run.folder / PROGRESS)
    if state is None:
        return f'starting, {clock(seconds)}'
    text = f'iteration {state["done"]}/{state["of"]}, {clock(seconds)}'
    if state['last'] is not None:
        name = next(iter(run.network.scores))
        text += f'; {name} {state["last"][name]:.2f} at {state["last"]["iteration"]}'
    return text


def _expected(to_do: list[Run], runs: list[Run]) -> float | None:
    """Seconds that runs will take, as the finished ones of the same network (or any) did."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        result = result_of(run)
        if result is not None:
            seconds.setdefault(run.network.name, []).append(result['wall_seconds'])
    if not seconds:
        return None
    means = {name: statistics.fmean(values) for name, values in seconds.items()}
    other = statistics.fmean(means.values())
    return sum(means.get(run.network.name, other) for run in to_do)
