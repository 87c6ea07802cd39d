"""What pages of the documentation have of a run of the benchmark of whole networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..page import GPU, blocks_by_device, blocks_to_fill, measured_on, paragraph, write_tables
from ..words import rate_line
from .networks import EVAL, TRAINING
from .report import COLUMNS, table_of
from .rows import Row, setting_of, title

KIND = 'model_tables'
_SHOWN = (
    *('network', 'giga-multiply-adds', 'ms', 'images/s', 'x floor', '/ ConvNeXt-T'),
    *('/ own training form', '/ not fused', 'peak / not fused', '/ float32', 'peak MiB'),
)
_COLUMNS = [column for column in COLUMNS if column[0] in _SHOWN]
# Which rows of a run a block has.
_FORMS: dict[str, Callable[[Row], bool]] = {
    'networks': lambda row: row['mode'] == EVAL,
    'training-step': lambda row: row['mode'] == TRAINING,
    'slak': lambda row: 'SLaK' in row['network'],
}


def page_blocks(device: str) -> list[str]:
    """Names of the blocks that a run on a device has tables for."""
    return blocks_by_device(_FORMS, device)


def update_page(result: dict[str, Any], page: Path) -> None:
    """Put tables into the blocks of a page, see :func:`mmsw.benchmarks.page.write_tables`.

    Args:
        result: What :func:`~.benchmark.benchmark_model` returns.
        page: Markdown with some of the blocks ``networks`` (evaluation), ``training-step`` and
            ``slak``; of a run on a GPU, ``networks-gpu`` and so on. A block for which the run has
            no rows stays as it is.
    """
    for name in blocks_to_fill(page, page_blocks(result['machine']['device'])):
        rows = [row for row in result['rows'] if _FORMS[name.removesuffix(GPU)](row)]
        if rows:
            kept = [{key: value for key, value in row.items() if key != 'shares'} for row in rows]
            found = dict(machine=result['machine'], settings=result['settings'], rows=kept)
            write_tables(page, page_text(found), KIND, found, name)


def page_text(found: dict[str, Any]) -> str:
    """What a block has of a run.

    Args:
        found: What the JSON file beside the page holds.
    """
    rows = found['rows']
    rates = [row['matmul_per_s'] for row in rows]
    told = f'{measured_on(found["machine"])} Backbones alone, with random weights.'
    rate = rate_line('Float32 matrix product of side 2048', rates, 'GMAC/s').removeprefix('- ')
    parts = [paragraph(f'{told} {rate}.')]
    for setting in dict.fromkeys(map(setting_of, rows)):
        own = [row for row in rows if setting_of(row) == setting]
        parts += [f'{_heading(setting)}:', '\n'.join(table_of(own, _COLUMNS))]
    return '\n\n'.join(parts) + '\n'


def _heading(setting: tuple) -> str:
    mode, _, sizes = title(setting).partition(': ')
    return f'{mode.capitalize()}, {sizes}'
