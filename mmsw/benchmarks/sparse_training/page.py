"""The tables of a finished benchmark of sparse training in a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..measure import machine
from ..page import blocks_to_fill, measured_on, paragraph, write_tables
from .plan import SparsitySettings
from .report import tables_and_conclusions
from .summary import Cell

KIND = 'sparsity_tables'
BLOCKS = ('', 'sparse-training')  # those of a page that a run fills
# What the tables need of the result of a run, and of its operators.
_KEPT = (
    *('accuracy', 'held_out', 'filters', 'filters_kept', 'weights', 'weights_kept', 'exchanged'),
    *('seconds_per_iteration', 'updates_share', 'threads'),
)
_KEPT_OPERATOR = ('work_left', 'forward', 'forward_backward')


def update_page(cells: Sequence[Cell], settings: SparsitySettings, page: Path) -> None:
    """Put the tables into a page, see :func:`mmsw.benchmarks.page.write_tables`.

    Args:
        cells: Of the report, all of them finished and their operators measured.
        settings: What was asked for.
        page: Markdown with one block, or with one called ``sparse-training``.
    """
    result = {
        'machine': machine(torch.device('cpu')),
        'settings': {
            'max_iters': settings.max_iters,
            'update_interval': settings.update_interval,
            'end_iter': settings.end_iter,
            'jobs': settings.jobs,
            'rules': dict(settings.rules),
        },
        'cells': [_kept(cell) for cell in cells],
    }
    for name in blocks_to_fill(page, BLOCKS):
        write_tables(page, page_text(result), KIND, result, name)


def page_text(found: dict[str, Any]) -> str:
    """What a page has of a run.

    Args:
        found: What the JSON file beside the page holds.
    """
    cells = [
        Cell(
            cell['wanted'],
            {int(seed): result for seed, result in cell['results'].items()},
            cell['method'],
            cell['sparsity'],
            {int(seed): operator for seed, operator in cell['operators'].items()},
        )
        for cell in found['cells']
    ]
    asked = found['settings']
    images = {result['held_out'] for cell in cells for result in cell.results.values()}
    told = (
        f'{measured_on(found["machine"])} {asked["jobs"]} runs side by side, one thread each. '
        f'Iterations: {asked["max_iters"]}; masks change every {asked["update_interval"]} '
        f'iterations up to iteration {asked["end_iter"]}; held-out images: '
        f'{" or ".join(map(str, sorted(images)))}.'
    )
    return '\n\n'.join([paragraph(told), *tables_and_conclusions(cells)]) + '\n'


def _kept(cell: Cell) -> dict[str, Any]:
    return {
        'method': cell.method,
        'sparsity': cell.sparsity,
        'wanted': cell.wanted,
        'results': {
            str(seed): {name: result[name] for name in _KEPT}
            for seed, result in cell.results.items()
        },
        'operators': {
            str(seed): {name: found[name] for name in _KEPT_OPERATOR}
            for seed, found in cell.operators.items()
        },
    }
