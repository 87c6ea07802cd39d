"""Units by their definition, index by index in plain loops: what the fast code must equal."""

from __future__ import annotations

from itertools import product

import numpy as np

# The kinds, with numbers for which some odd shapes fit and others do not.
GRANULARITIES = ['filter', 'channel', 'block 2x3', 'block 1x4', 'block 3x1', '2:4', '1:3', 'weight']


def literal_units(shape: tuple[int, ...], granularity: str) -> list[list[tuple[int, ...]]] | None:
    """Places of the weights of every unit; ``None`` where the shape does not fit."""
    places = list(product(*map(range, shape)))
    row = int(np.prod(shape[1:]))
    column = {place: index % row for index, place in enumerate(places)}
    if granularity == 'filter':
        return [[p for p in places if p[0] == f] for f in range(shape[0])]
    if granularity == 'channel':
        if shape[1] == 1:
            return None
        return [[p for p in places if p[1] == c] for c in range(shape[1])]
    if granularity.startswith('block'):
        rows, columns = map(int, granularity.split()[1].split('x'))
        if shape[0] % rows or row % columns:
            return None
        return [
            [p for p in places if p[0] // rows == r and column[p] // columns == c]
            for r in range(shape[0] // rows)
            for c in range(row // columns)
        ]
    if ':' in granularity and row % int(granularity.split(':')[1]):
        return None
    return [[place] for place in places]


def literal_groups(number: int, granularity: str) -> list[range]:
    """Units of each group of which so many stay; none where the granularity is of no groups."""
    if ':' not in granularity:
        return []
    size = int(granularity.split(':')[1])
    return [range(start, start + size) for start in range(0, number, size)]
