"""The scores of the demonstration in a page of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmsw.demo.report import DemoReport

from .measure import machine
from .page import blocks_to_fill, measured_on, paragraph, write_tables
from .words import NONE, table

KIND = 'demo_tables'
_BLOCKS = {'seg': 'demo', 'det': 'demo-detection'}


def check_demo_page(page: Path, task: str) -> None:
    """See that a page has a place for the scores.

    Args:
        page: Markdown with a block called ``demo``, for detection ``demo-detection``.
        task: ``'seg'`` or ``'det'``.

    Raises:
        UsageError: If there is no such page, or no such block.
    """
    blocks_to_fill(page, [_BLOCKS[task]])


def update_page(report: DemoReport, task: str, page: Path) -> None:
    """Put the scores into a page, see :func:`mmsw.benchmarks.page.write_tables`.

    Args:
        report: What :func:`mmsw.demo.report.demo_report` returns.
        task: What it was asked about.
        page: As for :func:`check_demo_page`.
    """
    before, after = (density.total for density in report.densities)
    found = dict(
        machine=machine(torch.device('cpu')),
        num_scenes=report.num_scenes,
        checkpoint=report.end.name,
        scores={name: list(pair) for name, pair in report.scores.items()},
        beside=report.beside,
        filters=dict(kept_before=before.kept, kept_after=after.kept, total=after.total),
        num_zeros=report.num_zeros,
    )
    write_tables(page, page_text(found), KIND, found, _BLOCKS[task])


def page_text(found: dict[str, Any]) -> str:
    """What a block has of a finished demonstration.

    Args:
        found: What the JSON file beside the page holds.
    """
    told = (
        f'{measured_on(found["machine"])} Scores are in per cent, on {found["num_scenes"]} '
        'held-out scenes.'
    )
    others, filters = found['beside'], found['filters']
    body = [
        [
            name,
            *(f'{score:.2f}' for score in pair),
            *(f'{scores[name]:.2f}' if name in scores else NONE for scores in others.values()),
        ]
        for name, pair in found['scores'].items()
    ]
    total = filters['total']
    kept = [f'{filters[key]} of {total}' for key in ('kept_before', 'kept_after')]
    body.append(['filters kept', *kept, *([NONE] * len(others))])
    head = ['SW mini', 'before fine-tuning', 'after', *others]
    lines = table(head, body)
    zeros = (
        f'All {found["num_zeros"]} weights that were zero at the start are exactly zero in '
        f'`{found["checkpoint"]}`.'
    )
    return '\n\n'.join([paragraph(told), '\n'.join(lines), paragraph(zeros)]) + '\n'
