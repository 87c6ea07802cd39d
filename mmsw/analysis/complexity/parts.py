"""The part of a network that a module belongs to, by its name."""

from __future__ import annotations

_SPLIT = ('roi_head',)  # top-level modules whose children are parts of their own


def part_of(name: str) -> str:
    """The part that a module belongs to; ``''`` is the network itself."""
    first, _, rest = name.partition('.')
    return f'{first}.{rest.partition(".")[0]}' if first in _SPLIT and rest else first
