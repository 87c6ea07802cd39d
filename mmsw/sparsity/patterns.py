"""Which structure the zeros of a layer have: what a mask was pruned by, read off the mask alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

# Sides of tiles that kernels for sparse weights take, beside whole spatial kernels.
_SIDES = (64, 32, 16, 8, 4, 2)
# Group lengths of N:M sparsity, from that of NVIDIA's sparse tensor cores on.
_GROUPS = (4, 8, 16, 32)
# Share of the weights that may be zero by chance: an initialisation in float32 draws some.
_STRAY = 1e-4


@dataclass(frozen=True)
class Pattern:
    """Structure of the zeros of one layer.

    Attributes:
        kind: ``'dense'``, ``'filter'``, ``'channel'``, ``'filter+channel'``, ``'block RxC'``,
            ``'N:M'`` (for instance ``'2:4'``) or ``'weight'``.
        pruned: Weights that are pruned.
        total: Weights.
        filters_pruned: Entries of dimension 0 that are pruned whole.
        filters: Entries of dimension 0.
        channels_pruned: Entries of dimension 1 that are pruned in every filter.
        channels: Entries of dimension 1.
        fits_2_4: Whether at most 2 of each 4 consecutive weights of a filter are kept, whatever
            the kind: what hardware for semi-structured sparsity asks for.
    """

    kind: str
    pruned: int
    total: int
    filters_pruned: int
    filters: int
    channels_pruned: int
    channels: int
    fits_2_4: bool

    @property
    def sparsity(self) -> float:
        """Share of the weights that is pruned; 0 where there are none."""
        return self.pruned / self.total if self.total else 0.0

    def __str__(self) -> str:
        return f'{self.kind}, {self.pruned}/{self.total} weights pruned ({self.sparsity:.2%})'


def pattern_of(mask: Tensor) -> Pattern:
    """The coarsest structure that explains the zeros of a layer.

    Tried in this order:

    1. ``'filter'``, ``'channel'`` and ``'filter+channel'``: every zero lies in a filter (an entry
       of dimension 0) or an input channel (one of dimension 1) that is pruned whole, but for one
       weight in 10,000, which may be zero by chance.
    2. ``'block RxC'``: the weight as a matrix ``[F, C * kh * kw]`` falls into tiles of R rows by C
       columns, each of which is pruned whole or kept whole. R is a power of two up to 64; C is one
       as well, or a multiple of ``kh * kw``. The largest tiles count.
    3. ``'N:M'``: at most N of each M consecutive entries of a row are kept, at most half of them,
       and most groups that keep anything keep exactly N. Zeros without structure leave fuller
       groups, unless there are hardly any weights left; the rule of the majority tells these apart.
    4. ``'weight'``: single weights.

    Args:
        mask: ``[F, C, ...]``, boolean; True = kept.

    Returns:
        The structure with its counts.

    Raises:
        TypeError: If the mask is not boolean.
        ValueError: If it has less than two dimensions.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f'mask must be boolean (True = keep), got {mask.dtype}')
    if mask.ndim < 2:
        raise ValueError(f'mask must have at least two dimensions, got {list(mask.shape)}')
    rows = mask.detach().flatten(1)
    filters = ~rows.any(1)
    channels = ~mask.detach().flatten(2).any(2).any(0) if mask.ndim > 2 else ~rows.any(0)
    pruned = mask.numel() - int(mask.sum())
    return Pattern(
        kind=_kind(rows, filters, channels, pruned, prod(mask.shape[2:])),
        pruned=pruned,
        total=mask.numel(),
        filters_pruned=int(filters.sum()),
        filters=mask.shape[0],
        channels_pruned=int(channels.sum()),
        channels=mask.shape[1],
        fits_2_4=rows.numel() > 0 and rows.shape[1] % 4 == 0 and _most_kept(rows, 4) <= 2,
    )


def _kind(rows: Tensor, filters: Tensor, channels: Tensor, pruned: int, kernel: int) -> str:
    if not pruned:
        return 'dense'
    num_filters, num_channels = int(filters.sum()), int(channels.sum())
    kept = (len(rows) - num_filters) * (len(channels) - num_channels) * kernel
    explained = {
        'filter': num_filters * rows.shape[1],
        'channel': num_channels * kernel * len(rows),
        'filter+channel': rows.numel() - kept,
    }
    for kind, number in explained.items():
        if number and pruned - number <= _STRAY * rows.numel():
            return kind
    return _block(rows, kernel) or _groups(rows) or 'weight'


def _block(rows: Tensor, kernel: int) -> str | None:
    """``'block RxC'`` with the largest tiles that are pruned or kept whole, if there are any."""
    lengths = sorted({*_SIDES, *(kernel * side for side in (*_SIDES, 1))}, reverse=True)
    width = next((side for side in lengths if side > 1 and _is_tiled(rows, side)), 1)
    height = next((side for side in _SIDES if _is_tiled(rows.T, side)), 1)
    return f'block {height}x{width}' if height * width > 1 else None


def _is_tiled(rows: Tensor, side: int) -> bool:
    """Whether all of each ``side`` consecutive entries of a row are alike."""
    if rows.shape[1] % side or rows.shape[1] == side:
        return False
    tiles = rows.unflatten(1, (-1, side))
    return bool((tiles == tiles[..., :1]).all())


def _groups(rows: Tensor) -> str | None:
    """``'N:M'`` of the shortest groups that explain the zeros, if there are any."""
    for length in _GROUPS:
        if rows.shape[1] % length:
            continue
        kept = rows.unflatten(1, (-1, length)).sum(2)
        most, used = int(kept.max()), kept[kept > 0]
        if 2 * most <= length and 2 * int((used == most).sum()) > len(used):
            return f'{most}:{length}'
    return None


def _most_kept(rows: Tensor, length: int) -> int:
    return int(rows.unflatten(1, (-1, length)).sum(2).max())
