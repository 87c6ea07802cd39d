"""Tables that were taken from a page, since the run behind them left nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

KIND = 'transcribed_tables'


def transcribed_text(found: Mapping[str, Any]) -> str:
    """What a page has of such tables.

    Args:
        found: What the JSON file beside the page holds: ``parts``, each of which is a string of one
            or more lines, or a table with ``head``, ``rows`` and ``figures``, the number of its
            last columns that are aligned to the right.
    """
    parts = [part if isinstance(part, str) else _table(part) for part in found['parts']]
    return '\n\n'.join(parts) + '\n'


def parts_of(text: str) -> list[str | dict[str, Any]]:
    """The parts that :func:`transcribed_text` makes a text of, with tables in one form.

    Args:
        text: Paragraphs and tables, with an empty line between two of them.
    """
    parts = text.strip('\n').split('\n\n')
    return [_read_table(part) if part.startswith('|') else part for part in parts]


def _table(part: Mapping[str, Any]) -> str:
    left = len(part['head']) - part['figures']
    rule = ['---'] * left + ['---:'] * part['figures']
    lines = [part['head'], rule, *part['rows']]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def _read_table(text: str) -> dict[str, Any]:
    head, rule, *rows = map(_cells, text.splitlines())
    figures = sum(cell.endswith(':') for cell in rule)
    return {'head': head, 'figures': figures, 'rows': rows}


def _cells(line: str) -> Sequence[str]:
    return [cell.strip() for cell in line.strip().removeprefix('|').removesuffix('|').split('|')]
