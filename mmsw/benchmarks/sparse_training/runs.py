"""Executing the runs of the benchmark, some side by side, each in a process of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mmengine.config import Config

from mmsw.whole_file import write_whole

from ..files import write_json
from ..processes import clock, end, start
from ..runs import LOG, Failure, failure_of, result_of
from .plan import Run, SparsitySettings, run_config

_POLL = 0.2  # seconds
_ONE_THREAD = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), '1')


@dataclass(frozen=True)
class _Active:
    number: int
    run: Run
    process: subprocess.Popen
    log: TextIO


def execute(
    cfg: Config,
    runs: Sequence[Run],
    settings: SparsitySettings,
    progress: Callable[[str], None],
) -> list[Failure]:
    """Train what is not finished, ``settings.jobs`` runs at a time.

    Args:
        cfg: What is trained.
        runs: All runs, in order.
        settings: What was asked for.
        progress: Called with a line of text now and then.

    Returns:
        What failed; the other runs went on.
    """
    waiting = [run for run in runs if result_of(run) is None]
    finished = len(runs) - len(waiting)
    if finished:
        progress(f'{finished} of {len(runs)} runs are finished already')
    begun = time.monotonic()
    failures: list[Failure] = []
    active: list[_Active] = []
    with ExitStack() as open_logs:
        try:
            while waiting or active:
                while waiting and len(active) < settings.jobs:
                    number = len(runs) - len(waiting) + 1
                    active.append(_begin(cfg, waiting.pop(0), settings, number, open_logs))
                time.sleep(_POLL)
                for item in [item for item in active if item.process.poll() is not None]:
                    active.remove(item)
                    item.log.close()
                    failure = failure_of(item.run, item.process.returncode)
                    failures += [] if failure is None else [failure]
                    left = _expected(len(waiting) + len(active), runs, settings.jobs)
                    about = f', about {clock(left)} left' if left and (waiting or active) else ''
                    spent = f'elapsed {clock(time.monotonic() - begun)}{about}'
                    outcome = _outcome(item.run, failure)
                    progress(f'[{item.number}/{len(runs)}] {item.run.name}: {outcome}; {spent}')
                    if failure is not None:
                        progress(f'the end of {failure.log}:\n{failure.tail}')
        finally:
            for item in active:
                end(item.process)
    return failures


def _begin(
    cfg: Config, run: Run, settings: SparsitySettings, number: int, open_logs: ExitStack
) -> _Active:
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / 'settings.json', run.settings)
    config = run.folder / 'config.py'
    write_whole(config, run_config(cfg, run, settings).dump)
    log = open_logs.enter_context((run.folder / LOG).open('a', encoding='utf-8'))
    return _Active(number, run, start(_command(config), log, _ONE_THREAD), log)


def _command(config: Path) -> list[str]:
    return [sys.executable, '-m', 'mmsw.benchmarks.sparse_training.worker', str(config)]


def _outcome(run: Run, failure: Failure | None) -> str:
    if failure is not None:
        return f'FAILED with exit code {failure.code}'
    result = result_of(run)
    return (
        f'accuracy {result["accuracy"]:.2f}, '
        f'{result["filters_kept"] / result["filters"]:.1%} of the filters, '
        f'{result["seconds_per_iteration"]:.3f} s per iteration'
    )


def _expected(number: int, runs: Sequence[Run], jobs: int) -> float | None:
    """Seconds that so many runs will take, as the finished ones did."""
    results = [result for run in runs if (result := result_of(run)) is not None]
    if not results:
        return None
    return number * statistics.fmean(result['wall_seconds'] for result in results) / jobs
