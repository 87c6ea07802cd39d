"""Naming a few of many in a message."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 4


def listed(names: Sequence[str]) -> str:
    """The first names and the number of the others; ``'none'`` if there are none."""
    if not names:
        return 'none'
    shown = ', '.join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f'{shown} and {len(names) - _SHOWN} more'
