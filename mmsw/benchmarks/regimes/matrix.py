"""All cells of the regime matrix, in processes of their own: one for most, two for some."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from mmsw.errors import UsageError
from mmsw.json_file import read_json

from ..processes import end, python, start
from ..words import say
from .regimes import REGIMES, Cell
from .training import Outcome
from .worker import OUTCOMES

_ON_CPU = {'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}


def run_cells(cells: Sequence[Cell], folder: Path, logs: Path) -> dict[Cell, Outcome]:
    """Train cells on the CPU, with one thread per process.

    Args:
        cells: The cells.
        folder: New folder for what they write.
        logs: Folder that gets what the processes print.

    Returns:
        The outcome of each.

    Raises:
        UsageError: If a process fails; the message names its log.
    """
    found: dict[Cell, Outcome] = {}
    for nproc, group in groupby(sorted(cells, key=_processes), _processes):
        group = list(group)
        say(f'{len(group)} trainings, {nproc} process{"es" if nproc > 1 else ""} each')
        log = logs / f'processes_{nproc}.log'
        found |= _run(group, nproc, folder / f'processes_{nproc}', log)
    return found


def _processes(cell: Cell) -> int:
    return REGIMES[cell.regime].processes


def _run(cells: Sequence[Cell], nproc: int, folder: Path, log: Path) -> dict[Cell, Outcome]:
    folder.mkdir(parents=True)
    command = python(
        'mmsw.benchmarks.regimes.worker', os.fspath(folder), *map(str, cells), nproc=nproc
    )
    with log.open('w', encoding='utf-8') as output:
        process = start(command, output, _ON_CPU)
        try:
            code = process.wait()
        finally:
            end(process)
    outcomes = read_json(folder / OUTCOMES, 'regime_outcomes')
    if code or outcomes is None:
        raise UsageError(f'the trainings ended with exit code {code}; {log} says why')
    return {cell: Outcome(**outcomes[str(cell)]) for cell in cells}
