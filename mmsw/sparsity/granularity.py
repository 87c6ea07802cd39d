"""Granularities: what is pruned in one piece, and which weights can be cut into such pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

WHOLE = ('filter', 'channel', 'weight')
_BLOCK = re.compile(r'block (\d+)\s*x\s*(\d+)')
_OF_GROUP = re.compile(r'(\d+):(\d+)')
_EXPECTED = (
    "'filter', 'channel', 'block RxC' (such as 'block 4x1'), 'N:M' (such as '2:4'), 'weight'"
)


@dataclass(frozen=True)
class Granularity:
    """What is pruned in one piece of a weight ``[F, C, ...]``.

    Flattened to a matrix, such a weight has ``F`` rows of ``C * ...`` entries.

    - ``filter``: one entry of the first dimension, a row of the matrix.
    - ``channel``: one entry of the second dimension, an input channel of the whole layer.
    - ``block RxC``: ``R`` rows by ``C`` consecutive entries of them.
    - ``N:M``: a single weight, but ``N`` of each ``M`` consecutive entries of a row stay.
    - ``weight``: a single weight.

    Attributes:
        kind: ``'filter'``, ``'channel'``, ``'block'``, ``'N:M'`` or ``'weight'``.
        first: ``R`` of a block, ``N`` of groups; 1 otherwise.
        second: ``C`` of a block, ``M`` of groups; 1 otherwise.
    """

    kind: str
    first: int = 1
    second: int = 1

    def __str__(self) -> str:
        if self.kind == 'block':
            return f'block {self.first}x{self.second}'
        return f'{self.first}:{self.second}' if self.kind == 'N:M' else self.kind

    @property
    def unit(self) -> str:
        """Name of one piece, for messages."""
        return 'weight' if self.kind == 'N:M' else self.kind

    @property
    def is_of_groups(self) -> bool:
        """Whether so many must stay of every group."""
        return self.kind == 'N:M'

    @property
    def most_sparsity(self) -> Fraction | None:
        """The share that all groups prune, exactly; ``None`` where any share can be pruned."""
        return 1 - Fraction(self.first, self.second) if self.is_of_groups else None

    def number(self, shape: Sequence[int]) -> int:
        """Pieces of a weight of this shape, which must fit."""
        if self.kind in ('filter', 'channel'):
            return shape[self.kind == 'channel']
        return prod(shape) // (self.first * self.second if self.kind == 'block' else 1)

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why a weight of this shape cannot be cut into such pieces; ``None`` if it can."""
        row = prod(shape[1:])
        if self.kind == 'channel' and shape[1] == 1:
            return 'its filters have a single input channel (depthwise)'
        if self.kind == 'block' and shape[0] % self.first:
            return f'{shape[0]} filters do not divide into blocks of {self.first}'
        if self.kind in ('block', 'N:M') and row % self.second:
            return f'{row} weights per filter do not divide into {self.second}s'
        return None


@lru_cache
def granularity_of(text: str) -> Granularity:
    """Read a granularity.

    Args:
        text: ``'filter'``, ``'channel'``, ``'block RxC'``, ``'N:M'`` or ``'weight'``.

    Raises:
        ValueError: If it is none of these, or its numbers make no sense.
    """
    block = _BLOCK.fullmatch(text) if isinstance(text, str) else None
    group = _OF_GROUP.fullmatch(text) if isinstance(text, str) else None
    if text in WHOLE:
        return Granularity(text)
    if block and min(sides := tuple(map(int, block.groups()))) >= 1:
        return Granularity('block', *sides)
    if group:
        first, second = map(int, group.groups())
        if 1 <= first < second:
            return Granularity('N:M', first, second)
        raise ValueError(f"granularity 'N:M' needs 1 <= N < M, got {text!r}")
    raise ValueError(f'granularity must be one of {_EXPECTED}, got {text!r}')


def check_possible(granularity: Granularity, sparsity: float) -> None:
    """Raise ``ValueError`` if groups that keep ``N`` of ``M`` cannot have this sparsity."""
    most = granularity.most_sparsity
    if most is not None and abs(sparsity - float(most)) > 1e-9:
        raise ValueError(
            f'granularity {str(granularity)!r} has a sparsity of {float(most):g} by itself; '
            f'leave sparsity out, got {sparsity}'
        )
