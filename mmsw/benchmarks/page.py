"""The tables of runs in the pages of the documentation, and their figures beside them.

A page has blocks, which commands fill: what stands between two lines ``<!-- tables: begin -->`` and
``<!-- tables: end -->``, or, where a page has several, ``<!-- tables NAME: begin -->`` and ``<!--
tables NAME: end -->``. The figures of a block are in ``figures/PAGE.json`` or
``figures/PAGE.NAME.json`` beside the page.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmsw.errors import UsageError
from mmsw.json_file import write_json
from mmsw.whole_file import write_text

from .provenance import provenance

GPU = '-gpu'
_WIDTH = 128  # characters of a line
_BEGIN = re.compile(r'^<!-- tables(?: ([a-z0-9-]+))?: begin -->$', re.MULTILINE)


def begin_line(name: str = '') -> str:
    """The line that a block begins with; the only block of a page needs no name."""
    return f'<!-- tables{" " if name else ""}{name}: begin -->'


def end_line(name: str = '') -> str:
    """The line that a block ends with."""
    return f'<!-- tables{" " if name else ""}{name}: end -->'


BEGIN, END = begin_line(), end_line()


def figures_path(page: Path, name: str = '') -> Path:
    """Where the figures of a block are."""
    file = f'{page.stem}.{name}.json' if name else f'{page.stem}.json'
    return page.parent / 'figures' / file


def write_tables(
    page: Path, text: str, kind: str, result: Mapping[str, Any], name: str = ''
) -> None:
    """Put the tables of a run into a page, and its figures beside it.

    Args:
        page: Markdown with a block of this name; what is in it goes.
        text: The tables, and what belongs to them.
        kind: Of the JSON file, see :mod:`mmsw.json_file`.
        result: What the JSON file holds, beside ``made``: see :func:`.provenance.provenance`.
        name: Of the block.

    Raises:
        UsageError: If there is no such page, or it has no such block.
    """
    put_text(page, text, name)
    write_json(figures_path(page, name), kind, {**result, 'made': provenance()})


def put_text(page: Path, text: str, name: str = '') -> None:
    """Put a text into a block; arguments and errors as of :func:`write_tables`."""
    before, _, rest = checked_page(page, [name]).partition(begin_line(name))
    _, _, after = rest.partition(end_line(name))
    write_text(page, f'{before}{begin_line(name)}\n\n{text}\n{end_line(name)}{after}')


def text_in(page: Path, name: str = '') -> str:
    """The text in a block as :func:`put_text` put it there; errors as there."""
    rest = checked_page(page, [name]).partition(f'{begin_line(name)}\n\n')[2]
    return rest.partition(f'\n{end_line(name)}')[0]


def blocks_of(text: str) -> list[str]:
    """Names of the blocks of a page, in their order; ``''`` for one without a name."""
    return [match[1] or '' for match in _BEGIN.finditer(text)]


def read_figures(page: Path, name: str = '') -> dict[str, Any]:
    """What the JSON file of a block holds, ``format`` included.

    Raises:
        UsageError: If there is no such file, or it is no object of JSON.
    """
    path = figures_path(page, name)
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UsageError(f'{path} cannot be read: {error}') from error
    if not isinstance(found, dict):
        raise UsageError(f'{path} holds a {type(found).__name__}, expected an object of JSON')
    return found


def checked_page(page: Path, names: Iterable[str] = ('',)) -> str:
    """The text of a page that has a place for tables.

    Args:
        page: Markdown.
        names: Of the blocks that it has to have.

    Raises:
        UsageError: If there is no such page, or a block is missing.
    """
    if not page.is_file():
        raise UsageError(f'page {page} does not exist')
    text = page.read_text(encoding='utf-8')
    for name in names:
        begin, end = begin_line(name), end_line(name)
        if begin not in text or end not in text.partition(begin)[2]:
            raise UsageError(f'page {page} has no lines {begin} and {end}, between which tables go')
    return text


def blocks_to_fill(page: Path, names: Iterable[str]) -> list[str]:
    """Which blocks of a page a run fills.

    Args:
        page: Markdown.
        names: Of the blocks that the run has tables for.

    Returns:
        Those that the page has.

    Raises:
        UsageError: If there is no such page, or it has none of them.
    """
    names = list(names)
    text = checked_page(page, ())
    found = [name for name in names if name in blocks_of(text)]
    if not found:
        places = ' or '.join(map(begin_line, names))
        raise UsageError(f'page {page} has no line {places}, behind which tables of this run go')
    checked_page(page, found)
    return found


def blocks_by_device(names: Iterable[str], device: str) -> list[str]:
    """Names of blocks for figures of a device: those of a GPU end in :data:`GPU`."""
    return [f'{name}{GPU}' if device.startswith('cuda') else name for name in names]


def paragraph(text: str) -> str:
    """Text in lines of a page."""
    return textwrap.fill(text, _WIDTH)


def item(text: str) -> str:
    """One item of a list, in lines of a page."""
    return textwrap.fill(f'- {text}', _WIDTH, subsequent_indent='  ', break_on_hyphens=False)


def measured_on(about: Mapping[str, Any], more: str = '') -> str:
    """A sentence about the machine that figures are of.

    Args:
        about: What :func:`.measure.machine` found.
        more: What else belongs behind it.
    """
    device = f', {about["gpu"]}, CUDA {about["cuda"]}' if 'gpu' in about else ''
    return (
        f'Measured on {about["cpus"]} processors of {about["cpu"]} ({about["cpu_capability"]})'
        f'{device}, torch {about["torch"]}, on {about["date"][:10]}{more}.'
    )
