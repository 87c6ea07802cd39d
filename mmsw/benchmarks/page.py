"""The tables of a run in a page of the documentation, and their figures beside it."""

from __future__ import annotations

import textwrap
from pathlib import Path

from mmsw.errors import UsageError
from mmsw.json_file import write_json
from mmsw.whole_file import write_text

_WIDTH = 128  # characters of a line
BEGIN, END = '<!-- tables: begin -->', '<!-- tables: end -->'


def write_tables(page: Path, text: str, kind: str, result: dict) -> None:
    """Put the tables of a run into a page, and its figures into the ``.json`` of the same name.

    Args:
        page: Markdown with the lines :data:`BEGIN` and :data:`END`; what is between them goes.
        text: The tables, and what belongs to them.
        kind: Of the JSON file, see :mod:`mmsw.json_file`.
        result: What the JSON file holds.

    Raises:
        UsageError: If there is no such page, or it has no such lines.
    """
    before, _, rest = checked_page(page).partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(page, f'{before}{BEGIN}\n\n{text}\n{END}{after}')
    write_json(page.with_suffix('.json'), kind, result)


def checked_page(page: Path) -> str:
    """The text of a page that has a place for tables; errors as of :func:`write_tables`."""
    if not page.is_file():
        raise UsageError(f'page {page} does not exist')
    text = page.read_text(encoding='utf-8')
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise UsageError(f'page {page} has no lines {BEGIN} and {END}, between which tables go')
    return text


def paragraph(text: str) -> str:
    """Text in lines of a page."""
    return textwrap.fill(text, _WIDTH)


def item(text: str) -> str:
    """One item of a list, in lines of a page."""
    return textwrap.fill(f'- {text}', _WIDTH, subsequent_indent='  ', break_on_hyphens=False)
