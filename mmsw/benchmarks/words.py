"""Figures and tables in the words that the reports of all timings use, and their progress."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence

NONE = '–'
_STEADY = 1.5  # highest over lowest rate of a machine that does nothing else


def say(line: str) -> None:
    """Report progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def threads_text(number: int) -> str:
    """``'1 thread'``, ``'2 threads'``."""
    return f'{number} thread{"s" if number != 1 else ""}'


def number(value: float | None, unit: str = '') -> str:
    """A figure with three digits or so, or a dash."""
    if value is None:
        return NONE
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2
    return f'{value:.{digits}f}{unit}'


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table: its first column is text, the others are figures."""
    rule = ['---', *['---:'] * (len(head) - 1)]
    return [f'| {" | ".join(cells)} |' for cells in (head, rule, *body)]


def rate_line(what: str, rates: Sequence[float], unit: str) -> str:
    """A rate of the machine over a run, with a warning if it was busy with something else.

    Args:
        what: What was measured, and how.
        rates: Per second, one for each group of rows.
        unit: What a thousand million of it is called.
    """
    low, middle, high = min(rates) / 1e9, statistics.median(rates) / 1e9, max(rates) / 1e9
    busy = ': **the machine was not idle**' if high > _STEADY * low else ''
    return f'- {what}: {middle:.1f} {unit} ({low:.1f} to {high:.1f} over the run{busy})'
