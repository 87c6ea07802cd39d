"""The tables of a run in a page of the documentation, and their figures beside it."""

from __future__ import annotations

from pathlib import Path

from mmsw.errors import UsageError
from mmsw.json_file import write_json
from mmsw.whole_file import write_text

from .report import tables

BEGIN, END = '<!-- tables: begin -->', '<!-- tables: end -->'


def update_page(result: dict, page: Path) -> None:
    """Put the tables of a run into a page, and its figures into the ``.json`` of the same name.

    Args:
        result: What :func:`~.benchmark.benchmark_export` returns.
        page: Markdown with the lines :data:`BEGIN` and :data:`END`; what is between them goes.

    Raises:
        UsageError: If there is no such page, or it has no such lines.
    """
    text = checked_page(page)
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(page, f'{before}{BEGIN}\n\n{page_text(result)}\n{END}{after}')
    write_json(page.with_suffix('.json'), 'benchmark_export', result)


def checked_page(page: Path) -> str:
    """The text of a page that has a place for tables; errors as of :func:`update_page`."""
    if not page.is_file():
        raise UsageError(f'page {page} does not exist')
    text = page.read_text(encoding='utf-8')
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise UsageError(f'page {page} has no lines {BEGIN} and {END}, between which tables go')
    return text


def page_text(result: dict) -> str:
    """What a page has of a run."""
    about, packages = result['machine'], result['packages']
    versions = ', '.join(f'{name} {found}' for name, found in packages.items())
    lines = [
        f'Measured on {about["cpus"]} processors of {about["cpu"]} ({about["cpu_capability"]}), '
        f'torch {about["torch"]}, {versions}.',
        *tables(result),
    ]
    if result['left_out']:
        lines += ['', 'Without a row:', '', *(f'- {line}' for line in result['left_out'])]
    return '\n'.join([*lines, ''])
