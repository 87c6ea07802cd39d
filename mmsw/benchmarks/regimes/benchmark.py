"""The benchmark of regimes: do zeros survive every way to train that mmengine offers?"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from mmsw.errors import UsageError

from ..measure import machine, packages
from ..page import checked_page
from ..words import say
from .matrix import run_cells
from .networks import NETWORKS
from .regimes import CELLS, REGIMES, Cell
from .report import most_lost, problem_of, update_page, write_report
from .training import ITERATIONS, Start

_PACKAGES = ('mmengine', 'mmsegmentation', 'onedl-mmengine', 'onedl-mmsegmentation')
_ABSENT = 'not installed'


def benchmark_regimes(
    out: str | os.PathLike[str],
    *,
    only: Sequence[str] | None = None,
    page: str | os.PathLike[str] | None = None,
) -> dict[str, object]:
    """Train small networks with zeros in every regime, with the hook and without, and count zeros.

    Progress goes to standard error.

    Args:
        out: Folder for ``benchmark.md``, ``benchmark.json`` and the logs of the processes.
        only: Parts of the names of cells, ``'resnet/AdamW'`` or ``'ddp'`` for instance; ``None``
            for all cells.
        page: Markdown page that gets the tables, see :func:`mmsw.benchmarks.page.write_tables`.

    Returns:
        What ``benchmark.json`` holds.

    Raises:
        UsageError: If no cell has such a name, a page has no place for tables, a package is missing
            or a process fails.
        OSError: If the folder cannot be written.
    """
    cells = [cell for cell in CELLS if only is None or any(part in str(cell) for part in only)]
    if not cells:
        raise UsageError(
            f'only must be parts of names of cells, such as {CELLS[0]}, got {list(only)}'
        )
    if page is not None:
        checked_page(Path(page))
    os.makedirs(out, exist_ok=True)
    begin, about = time.perf_counter(), machine(torch.device('cpu'))
    with tempfile.TemporaryDirectory(dir=out, prefix='runs_') as folder:
        networks = [_described(name, Path(folder)) for name in NETWORKS]
        rows = _rows(cells, Path(folder), Path(out))
    errors = [f'{row["cell"]}: {problem}' for row in rows if (problem := problem_of(row))]
    result = dict(
        machine=about,
        packages={k: v for k, v in packages(_PACKAGES).items() if v != _ABSENT},
        iterations=ITERATIONS,
        networks=networks,
        left_out=[],
        errors=errors,
        seconds=round(time.perf_counter() - begin, 1),
        rows=rows,
    )
    write_report(result, out)
    if page is not None:
        update_page(result, Path(page))
    lost = sum(most_lost(row['outcome']) for row in rows)
    say(f'{len(rows)} cells, {lost} zeros lost, {len(errors)} errors')
    return result


def _described(name: str, folder: Path) -> dict[str, object]:
    start = Start(name, folder)
    weights = sum(int(mask.numel()) for mask in start.kept.values())
    about = dict(name=name, label=NETWORKS[name].label, zeros=start.zeros, weights=weights)
    return about | dict(patterns=start.patterns)


def _rows(cells: Sequence[Cell], folder: Path, logs: Path) -> list[dict]:
    controls = [cell.control for cell in cells if not REGIMES[cell.regime].refused]
    found = run_cells([*cells, *controls], folder / 'cells', logs)
    return [
        dict(
            cell=str(cell),
            network=cell.network,
            optimizer=cell.optimizer,
            regime=cell.regime,
            outcome=found[cell],
            control=found.get(cell.control),
        )
        for cell in cells
    ]
