"""Units, what is pruned in one piece, as vectors: one entry per filter, channel, block or weight.

A granularity is a text here, see :mod:`mmsw.sparsity.granularity`. All functions take weights
``[F, C, ...]`` that fit it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .granularity import granularity_of

_SINGLE = ('weight', 'N:M')


def unit_norms(values: Tensor, granularity: str) -> Tensor:
    """Size of every unit of a weight, a gradient or a momentum.

    Args:
        values: ``[F, C, ...]``.
        granularity: What a unit is.

    Returns:
        L2 norms, float64 ``[n]``, on the CPU; of single weights the absolute values.
    """
    values = _double(values)
    if granularity_of(granularity).kind in _SINGLE:
        return values.abs().flatten()
    return torch.linalg.vector_norm(_rows(values, granularity), dim=1)


def kept_weight(layer: nn.Module) -> Tensor:
    """Weight of a masked layer, zero where it is pruned; without gradient."""
    return layer.weight.detach().masked_fill(~layer.mask, 0.0)


def unit_sums(values: Tensor, granularity: str) -> Tensor:
    """Sum of ``values`` ``[F, C, ...]`` over every unit, float64 ``[n]`` on the CPU."""
    return _rows(_double(values), granularity).sum(1)


def kept_units(mask: Tensor, granularity: str) -> Tensor:
    """Units of a mask ``[F, C, ...]`` with anything left, boolean ``[n]`` on the CPU."""
    return _rows(mask.detach().cpu(), granularity).any(1)


def number_of_units(shape: Sequence[int], granularity: str) -> int:
    """Units of a weight of this shape, kept or not."""
    return granularity_of(granularity).number(shape)


def mask_of_units(kept: Tensor, before: Tensor, granularity: str) -> Tensor:
    """Mask that keeps exactly the units ``kept``.

    A unit that stays keeps the weights that it had; one that is grown gets all of them.

    Args:
        kept: Boolean ``[n]``.
        before: Mask ``[F, C, ...]`` that is replaced.
        granularity: What a unit is.

    Returns:
        Boolean, of the shape and on the device of ``before``.
    """
    kept, rows = kept.to(before.device).unsqueeze(1), _rows(before, granularity)
    grown = kept & ~rows.any(1, keepdim=True)
    return _whole((kept & rows) | grown, before.shape, granularity)


def _double(values: Tensor) -> Tensor:
    return values.detach().cpu().double()  # some devices have no float64


def _rows(values: Tensor, granularity: str) -> Tensor:
    """The values of every unit as a row, ``[n, size]``."""
    kind = granularity_of(granularity)
    if kind.kind in _SINGLE:
        return values.reshape(-1, 1)
    if kind.kind == 'channel':
        return values.transpose(0, 1).flatten(1)
    matrix = values.flatten(1)
    if kind.kind == 'filter':
        return matrix
    blocks = matrix.reshape(matrix.shape[0] // kind.first, kind.first, -1, kind.second)
    return blocks.transpose(1, 2).reshape(-1, kind.first * kind.second)


def _whole(rows: Tensor, shape: torch.Size, granularity: str) -> Tensor:
    """The inverse of :func:`_rows`."""
    kind = granularity_of(granularity)
    if kind.kind == 'channel':
        return rows.reshape(shape[1], shape[0], *shape[2:]).transpose(0, 1).contiguous()
    if kind.kind == 'block':
        blocks = rows.reshape(shape[0] // kind.first, -1, kind.first, kind.second)
        rows = blocks.transpose(1, 2)
    return rows.reshape(shape)
