"""Windows that cover a large image, and the share that each has in a pixel where they overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Span:
    """A window along one axis of an image, in pixels.

    It decides alone from ``own_begin`` to ``own_end``. Before that, from ``begin`` on, its share
    rises while that of the window before falls; behind it, up to ``end``, it falls. The rest of the
    window has no share: there it sees too little of what is around.

    Attributes:
        start: Where the window begins.
        stop: Where it ends.
        begin: Where its share rises from 0.
        own_begin: Where its share is 1.
        own_end: Where its share falls from 1.
        end: Where its share is 0 again.
    """

    start: int
    stop: int
    begin: int
    own_begin: int
    own_end: int
    end: int

    def share(self) -> np.ndarray:
        """From ``begin`` to ``end``, float32; the shares of all windows add up to 1 everywhere."""
        rise, fall = _slope(self.own_begin - self.begin), _slope(self.end - self.own_end)
        alone = np.ones(self.own_end - self.own_begin)
        return np.concatenate([rise, alone, 1 - fall]).astype(np.float32)


def _slope(length: int) -> np.ndarray:
    """From 0 to 1, smooth at both ends."""
    return np.sin(np.pi / 2 * (np.arange(length) + 0.5) / max(length, 1)) ** 2


def spans(length: int, window: int, overlap: float) -> list[Span]:
    """Windows of one size, evenly spread along an axis.

    Args:
        length: Of the axis.
        window: Of a window; the whole axis if that is shorter.
        overlap: Least share of a window that it has in common with the next, 0 to 0.5.
    """
    window = min(window, length)
    step = max(1, int(window * (1 - overlap)))
    number = math.ceil((length - window) / step) + 1
    starts = [round(k * (length - window) / max(1, number - 1)) for k in range(number)]
    # the middle of what neighbours have in common
    middles = [(left + window + right) // 2 for left, right in pairwise(starts)]
    room = [window - (right - left) for left, right in pairwise(starts)]
    room += [right - left for left, right in pairwise(middles)]
    half = min(room, default=0) // 2
    begins = [0, *(middle - half for middle in middles)]
    own_begins = [0, *(middle + half for middle in middles)]
    own_ends = [*(middle - half for middle in middles), length]
    ends = [*(middle + half for middle in middles), length]
    return [
        Span(start, start + window, *borders)
        for start, *borders in zip(starts, begins, own_begins, own_ends, ends, strict=True)
    ]


def grid(
    shape: tuple[int, ...], window: tuple[int, int], overlap: float
) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of the windows of an image, row by row."""
    columns = spans(shape[1], window[1], overlap)
    for row in spans(shape[0], window[0], overlap):
        yield from ((row, column) for column in columns)
