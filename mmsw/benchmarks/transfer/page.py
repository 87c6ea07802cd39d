"""The tables of a finished comparison in a page of the docs, and their figures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..comparison import Row
from ..measure import machine, training_device
from ..page import blocks_to_fill, paragraph, write_tables
from .plan import TransferSettings
from .report import TASK_TITLES, tables_and_conclusion

KIND = 'transfer_tables'
_SPARSE = 'sparse'  # what names of sparse starts begin with
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


def page_blocks(settings: TransferSettings, tasks: Iterable[str]) -> dict[str, Sequence[str]]:
    """Which tasks the blocks of a page have that a run has tables for.

    Args:
        settings: What was asked for.
        tasks: Of the run.
    """
    tasks = list(dict.fromkeys(tasks))
    blocks = {settings.comparison: tasks} if settings.comparison else _of_tasks(tasks)
    return {'': tasks, **blocks}


def _of_tasks(tasks: Sequence[str]) -> dict[str, Sequence[str]]:
    return {TASK_TITLES[task].lower(): [task] for task in tasks}


def update_page(rows: Sequence[Row], settings: TransferSettings, page: Path) -> None:
    """Put the tables into a page, see :func:`mmsw.benchmarks.page.write_tables`.

    Args:
        rows: Of the report, all of them finished.
        settings: What was asked for.
        page: Markdown with a place for tables: one block without a name; or one of the name of the
            comparison; or, without a comparison, one called ``segmentation`` or ``detection``.
    """
    blocks = page_blocks(settings, (row.task for row in rows))
    about = machine(training_device())
    for name in blocks_to_fill(page, blocks):
        own = [row for row in rows if row.task in blocks[name]]
        result = {
            'machine': about,
            'settings': {
                'seeds': settings.seeds,
                'budgets': {task: settings.budgets[task] for task in blocks[name]},
                'sparsity': settings.sparsity,
                'pretrain_epochs': settings.pretrain_epochs,
            },
            'rows': [_kept(row) for row in own],
        }
        write_tables(page, page_text(result), KIND, result, name)


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
        f'{about["date"][:10]}. Iterations: {budgets}.'
    )
    if any(row.start.startswith(_SPARSE) for row in rows):
        told += (
            f' The pretraining of the sparse starts pruned {asked["sparsity"]:.0%} of the small '
            'filters.'
        )
    parts = tables_and_conclusion(rows)
    if len({row.task for row in rows}) == 1:  # the page has a head of its own
        parts = [part for part in parts if not part.startswith('#')]
    return '\n\n'.join([paragraph(told), *parts]) + '\n'
