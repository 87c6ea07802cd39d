"""The blocks of the pages: what each has by the figures beside it, and where it differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmsw.errors import UsageError
from mmsw.json_file import write_json

from .. import demo_page, transcribed
from ..export import page as export_page
from ..model import page as model_page
from ..operator import page as operator_page
from ..page import blocks_of, figures_path, put_text, read_figures, text_in
from ..photographs import full_size_page
from ..photographs import page as photographs_page
from ..photographs.results import KIND as PHOTOGRAPHS
from ..photographs.results import KIND_FULL_SIZE
from ..regimes import report as regimes_report
from ..sparse_training import page as sparsity_page
from ..transfer import page as transfer_page

QUICK_NOTE = '**A quick run: it shows that the command works. Its figures mean nothing.**'
# By the kind of the JSON file.
_TEXTS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    'benchmark_export': export_page.page_text,
    'benchmark_regimes': regimes_report.page_text,
    demo_page.KIND: demo_page.page_text,
    model_page.KIND: model_page.page_text,
    operator_page.KIND: operator_page.page_text,
    KIND_FULL_SIZE: full_size_page.full_size_text,
    PHOTOGRAPHS: photographs_page.page_text,
    sparsity_page.KIND: sparsity_page.page_text,
    transcribed.KIND: transcribed.transcribed_text,
    transfer_page.KIND: transfer_page.page_text,
}
_MADE = ('command', 'commit', 'date')  # what every file says of its origin


def kind_of(found: Mapping[str, Any]) -> str:
    """The kind of a JSON file by its ``format``."""
    return str(found.get('format')).partition('/')[0].removeprefix('mmsw.')


def block_text(found: dict[str, Any]) -> str:
    """What a block has by its figures.

    Args:
        found: What the JSON file beside the page holds.

    Raises:
        UsageError: If no block has figures of this kind.
    """
    kind = kind_of(found)
    if kind not in _TEXTS:
        raise UsageError(f'figures of the kind {kind} have no tables; expected {", ".join(_TEXTS)}')
    text = _TEXTS[kind](found)
    return f'{QUICK_NOTE}\n\n{text}' if found['made'].get('quick') else text


def add_to_figures(page: Path, name: str, more: Mapping[str, Any]) -> None:
    """Say more of the origin of figures; the text of the block follows.

    Args:
        page: Of the block.
        name: Of the block.
        more: What ``made`` gets.
    """
    found = read_figures(page, name)
    found['made'] = {**found['made'], **more}
    put_text(page, block_text(found), name)
    content = {key: value for key, value in found.items() if key != 'format'}
    write_json(figures_path(page, name), kind_of(found), content)


def problems_of(page: Path) -> list[str]:
    """Where a page differs from the figures beside it, one line for each block that does."""
    named = ((name, _problem(page, name)) for name in blocks_of(page.read_text(encoding='utf-8')))
    return [f'{page.name}, block {name or "tables"}: {why}' for name, why in named if why]


def _problem(page: Path, name: str) -> str | None:
    try:
        if not figures_path(page, name).is_file() and not text_in(page, name).strip():
            return None  # nothing is claimed yet
        found = read_figures(page, name)
        missing = [key for key in _MADE if key not in found.get('made', {})]
        if missing or 'machine' not in found:
            lacking = [f'made.{key}' for key in missing] or ['machine']
            return f'{figures_path(page, name).name} does not say {", ".join(lacking)}'
        expected, shown = block_text(found), text_in(page, name)
    except UsageError as error:
        return str(error)
    if expected == shown:
        return None
    pairs = zip([*expected.splitlines(), ''], [*shown.splitlines(), ''], strict=False)
    told, there = next((pair for pair in pairs if pair[0] != pair[1]), ('', ''))
    return f'the figures give {told!r}, the page has {there!r}'
