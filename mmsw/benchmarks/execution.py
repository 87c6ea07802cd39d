"""Executing runs, each in a process of its own, some side by side."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mmengine.config import Config

from mmsw.json_file import read_json, write_json
from mmsw.whole_file import write_whole

from .hook import scores_in
from .processes import clock, end, python, start
from .runs import (
    CONFIG,
    LOG,
    PROGRESS,
    SETTINGS,
    AnyRun,
    Failure,
    Run,
    failure_of,
    finished,
    result_of,
)

_POLL = 0.2  # seconds
_TELL = 30.0  # seconds between lines of progress inside of a run
_THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')


@dataclass(frozen=True)
class Way:
    """How runs are executed.

    Attributes:
        jobs: Runs side by side.
        nproc: Processes of a run, under torchrun if there are several.
        threads: Of each process; None: as many as torch takes by itself.
    """

    jobs: int = 1
    nproc: int = 1
    threads: int | None = None


@dataclass
class _Active:
    place: str
    run: Run
    process: subprocess.Popen
    log: TextIO
    begun: float
    told: float


def execute(
    runs: Sequence[AnyRun],
    config_of: Callable[[AnyRun], Config],
    way: Way,
    progress: Callable[[str], None],
    ended: Callable[[Failure | None], None],
) -> None:
    """Train what is not finished; runs go on where they were stopped, and beside others that fail.

    Args:
        runs: All runs, in order.
        config_of: Gives the config of a run.
        way: How.
        progress: Called with a line of text now and then.
        ended: Called after each run, with its failure if it did not end well.
    """
    waiting = [run for run in runs if result_of(run) is None]
    if len(waiting) < len(runs):
        progress(f'{len(runs) - len(waiting)} of {len(runs)} runs are finished already')
    begun = time.monotonic()
    active: list[_Active] = []
    try:
        while waiting or active:
            while waiting and len(active) < way.jobs:
                left = _expected([*waiting, *(item.run for item in active)], runs, way.jobs)
                place = f'[{len(runs) - len(waiting) + 1}/{len(runs)}]'
                progress(
                    f'{place} {waiting[0].name}: begins; elapsed {clock(time.monotonic() - begun)}'
                    + (f', about {clock(left)} left' if left is not None else '')
                )
                run = waiting.pop(0)
                active.append(_begin(run, config_of(run), way, place))
            time.sleep(_POLL)
            for item in list(active):
                if item.process.poll() is not None:
                    active.remove(item)
                    ended(_close(item, progress))
                elif time.monotonic() - item.told > _TELL:
                    item.told = time.monotonic()
                    progress(f'    {item.run.name}: {_state(item)}')
    finally:
        for item in active:
            end(item.process)
            item.log.close()


def command(config: Path, nproc: int) -> list[str]:
    """What trains a config in ``nproc`` processes."""
    launcher = () if nproc == 1 else ('--launcher', 'pytorch')
    return python('mmsw.benchmarks.worker', str(config), *launcher, nproc=nproc)


def _begin(run: Run, cfg: Config, way: Way, place: str) -> _Active:
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / SETTINGS, 'training_settings', run.settings)
    config = run.folder / CONFIG
    write_whole(config, cfg.dump)
    (run.folder / PROGRESS).unlink(missing_ok=True)
    variables = {} if way.threads is None else dict.fromkeys(_THREADS, str(way.threads))
    log = (run.folder / LOG).open('a', encoding='utf-8')
    process = start(command(config, way.nproc), log, variables)
    return _Active(place, run, process, log, time.monotonic(), time.monotonic())


def _close(item: _Active, progress: Callable[[str], None]) -> Failure | None:
    """Tell how a run has ended."""
    item.log.close()
    failure = failure_of(item.run, item.process.returncode)
    if failure is not None:
        progress(
            f'{item.place} {item.run.name}: FAILED with exit code {failure.code}; the end of '
            f'{failure.log}:\n{failure.tail}'
        )
        return failure
    result = result_of(item.run)
    pace = result['seconds_per_iteration']  # unknown where each iteration has its evaluation
    told = '' if pace is None else f'{pace:.3f} s per iteration, '
    progress(
        f'{item.place} {item.run.name}: {_scores(result["scores"])}; '
        f'{told}{clock(result["wall_seconds"])}'
    )
    return None


def _state(item: _Active) -> str:
    """How far a run is."""
    spent = clock(time.monotonic() - item.begun)
    state = read_json(item.run.folder / PROGRESS, 'training_progress')
    if state is None:
        return f'starting, {spent}'
    text = f'iteration {state["done"]}/{state["of"]}, {spent}'
    last = state['last']
    return text if last is None else f'{text}; {_scores(scores_in(last))} at {last["iteration"]}'


def _scores(scores: dict[str, float]) -> str:
    return ', '.join(f'{name} {score:.2f}' for name, score in scores.items())


def _expected(to_do: Sequence[Run], runs: Sequence[Run], jobs: int) -> float | None:
    """Seconds that runs will take, as the finished ones of the same kind (or any) did."""
    seconds: dict[str, list[float]] = {}
    for run, result in finished(runs):
        seconds.setdefault(run.kind, []).append(result['wall_seconds'])
    if not seconds:
        return None
    means = {kind: statistics.fmean(values) for kind, values in seconds.items()}
    other = statistics.fmean(means.values())
    return sum(means.get(run.kind, other) for run in to_do) / jobs
