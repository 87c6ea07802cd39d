"""Trains cells of the regime matrix, one after the other; ``matrix.py`` starts it."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from mmsw.apis.cli import leave, run_reporting_errors
from mmsw.json_file import write_json

from .regimes import Cell
from .training import Start, run_cell

OUTCOMES = 'outcomes.json'


def main(argv: Sequence[str] | None = None) -> int:
    """Train the cells, in each process of the group; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('cells', nargs='+', type=Cell.named)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # a killed training is a fork, which must not wait for lost threads
    warnings.filterwarnings('ignore', 'torch.utils.checkpoint: the use_reentrant')  # of mmseg
    if 'WORLD_SIZE' in os.environ:
        dist.init_process_group('gloo')
    return run_reporting_errors(lambda: _run(args.cells, args.folder))


def _run(cells: Sequence[Cell], folder: Path) -> None:
    rank = dist.get_rank() if dist.is_initialized() else 0
    starts_at = folder / f'starts{rank}'
    starts_at.mkdir()
    starts = {name: Start(name, starts_at) for name in {cell.network for cell in cells}}
    found = {str(cell): run_cell(cell, starts[cell.network], folder / str(cell)) for cell in cells}
    if rank == 0:
        write_json(folder / OUTCOMES, 'regime_outcomes', found)


if __name__ == '__main__':
    leave(main())
