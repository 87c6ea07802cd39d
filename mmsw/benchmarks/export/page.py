"""What the page of exported files has of a run."""

from __future__ import annotations

from pathlib import Path

from ..page import item, paragraph, write_tables
from .report import tables


def update_page(result: dict, page: Path) -> None:
    """Put the tables of a run into a page, see :func:`mmsw.benchmarks.page.write_tables`.

    Args:
        result: What :func:`~.benchmark.benchmark_export` returns.
        page: The page.
    """
    write_tables(page, page_text(result), 'benchmark_export', result)


def page_text(result: dict) -> str:
    """What a page has of a run."""
    about, packages = result['machine'], result['packages']
    versions = ', '.join(f'{name} {found}' for name, found in packages.items())
    told = (
        f'Measured on {about["cpus"]} processors of {about["cpu"]} ({about["cpu_capability"]}), '
        f'torch {about["torch"]}, {versions}.'
    )
    lines = [paragraph(told), *tables(result)]
    if result['left_out']:
        lines += ['', 'Without a row:', '', *map(item, result['left_out'])]
    return '\n'.join([*lines, ''])
