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

_LOG = 'log.txt'
_TAIL = 2000  # characters of a log
_ON_CPU = {'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'}


def run_cells(cells: Sequence[Cell], folder: Path) -> dict[Cell, Outcome]:
    """Train cells on the CPU, with one thread per process.

    Args:
        cells: The cells.
        folder: New folder for what they write.

    Returns:
        The outcome of each.

    Raises:
        UsageError: If a process fails; the message has the end of its log.
    """
    found: dict[Cell, Outcome] = {}
    for nproc, group in groupby(sorted(cells, key=_processes), _processes):
        group = list(group)
        say(f'{len(group)} trainings, {nproc} process{"es" if nproc > 1 else ""} each')
        found |= _run(group, nproc, folder / f'processes{nproc}')
    return found


def _processes(cell: Cell) -> int:
    return REGIMES[cell.regime].processes


def _run(cells: Sequence[Cell], nproc: int, folder: Path) -> dict[Cell, Outcome]:
    folder.mkdir(parents=True)
    command = python(
        'mmsw.benchmarks.regimes.worker', os.fspath(folder), *map(str, cells), nproc=nproc
    )
    path = folder / _LOG
    with path.open('w', encoding='utf-8') as log:
        process = start(command, log, _ON_CPU)
        try:
            code = process.wait()
        finally:
            end(process)
    outcomes = read_json(folder / OUTCOMES, 'regime_outcomes')
    if code or outcomes is None:
        tail = path.read_text(encoding='utf-8', errors='replace')[-_TAIL:]
        raise UsageError(f'the trainings ended with exit code {code}; the end of {path}:\n{tail}')
    return {cell: Outcome(**outcomes[str(cell)]) for cell in cells}
