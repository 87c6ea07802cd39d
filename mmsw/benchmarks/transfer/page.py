"""The tables of a finished comparison in a page of the docs, and their figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..comparison import Row
from ..measure import machine
from ..page import paragraph, write_tables
from .plan import TransferSettings
from .report import tables_and_conclusion

_KIND = 'transfer_tables'
# What the tables need of the result of a run.
_KEPT = (
    'scores',
    'density_before',
    'density_after',
    'seconds_per_iteration',
    'peak_memory',
    'memory',
    'parameters',
    'parameters_used',
    'macs',
    'macs_used',
    'input_size',
    'threads',
)


def update_page(rows: Sequence[Row], settings: TransferSettings, page: Path) -> None:
    """Put the tables into a page, see :func:`mmsw.benchmarks.page.write_tables`.

    Args:
        rows: Of the report, all of them finished.
        settings: What was asked for.
        page: Markdown with a place for tables.
    """
    result = {
        'machine': machine(torch.device('cuda' if torch.cuda.is_available() else 'cpu')),
        'settings': {
            'seeds': settings.seeds,
            'budgets': dict(settings.budgets),
            'sparsity': settings.sparsity,
            'pretrain_epochs': settings.pretrain_epochs,
        },
        'rows': [_kept(row) for row in rows],
    }
    write_tables(page, page_text(result), _KIND, result)


def _kept(row: Row) -> dict[str, Any]:
    results = {
        str(seed): {
            **{name: result[name] for name in _KEPT},
            'curve': [{'iteration': result['curve'][-1]['iteration']}],
        }
        for seed, result in row.results.items()
    }
    named = dict(network=row.network, task=row.task, start=row.start, wanted=row.wanted)
    return {**named, 'results': results}


def page_text(result: dict[str, Any]) -> str:
    """What a page has of a comparison.

    Args:
        result: What the JSON file beside the page holds.
    """
    rows = [
        Row(
            row['wanted'],
            {int(seed): found for seed, found in row['results'].items()},
            row['network'],
            row['task'],
            row['start'],
        )
        for row in result['rows']
    ]
    about, asked = result['machine'], result['settings']
    threads = sorted({found['threads'] for row in rows for found in row.results.values()})
    budgets = ' and '.join(f'{number} ({task})' for task, number in asked['budgets'].items())
    told = (
        f'Measured on {about["cpus"]} processors of {about["cpu"]} ({about["cpu_capability"]}), '
        f'torch {about["torch"]}, {" or ".join(map(str, threads))} thread(s) per run, on '
        f'{about["date"][:10]}. Iterations: {budgets}. The pretraining of the sparse starts pruned '
        f'{asked["sparsity"]:.0%} of the small filters.'
    )
    return '\n\n'.join([paragraph(told), *tables_and_conclusion(rows)]) + '\n'
