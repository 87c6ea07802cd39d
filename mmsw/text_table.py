"""Text for a terminal: aligned columns, and sentences below them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_GAP = '  '
_WIDTH = 96  # of sentences, in characters


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned columns, one line per row, without spaces at the ends of lines.

    Args:
        head: Name of each column; empty for one that belongs to the column before it.
        rows: Cells of each row, as many as there are names.
        left: How many of the first columns are aligned to the left; the others to the right.
    """
    body = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    lines = []
    for row in body:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(_GAP.join(cells).rstrip())
    return '\n'.join(lines)


def wrapped(text: str) -> str:
    """A sentence in lines of up to 96 characters, broken between words but at no equals sign."""
    kept_together = text.replace(' = ', '\xa0=\xa0')
    lines = textwrap.fill(kept_together, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return lines.replace('\xa0', ' ')
