"""Units, what is pruned in one piece: whole filters or single weights, as the granularity says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GRANULARITIES = ('filter', 'weight')


def check_granularity(granularity: str) -> None:
    """Raise ``ValueError`` unless it is ``'filter'`` or ``'weight'``."""
    if granularity not in GRANULARITIES:
        raise ValueError(f'granularity must be one of {GRANULARITIES}, got {granularity!r}')


def unit_norms(values: Tensor, granularity: str) -> Tensor:
    """Size of every unit of a weight, a gradient or a momentum.

    Args:
        values: ``[F, ...]``, one filter per entry of the first dimension.
        granularity: ``'filter'``: L2 norm of each filter; ``'weight'``: absolute values.

    Returns:
        float64 ``[F]`` or ``[values.numel()]``, on the CPU.
    """
    check_granularity(granularity)
    values = values.detach().flatten(1).cpu().double()  # some devices have no float64
    if granularity == 'filter':
        return torch.linalg.vector_norm(values, dim=1)
    return values.abs().flatten()


def kept_weight(layer: nn.Module) -> Tensor:
    """Weight of a masked layer, zero where it is pruned; without gradient."""
    return layer.weight.detach().masked_fill(~layer.mask, 0.0)


def unit_sums(values: Tensor, granularity: str) -> Tensor:
    """Sum of ``values`` ``[F, ...]`` over every unit, float64 ``[n]`` on the CPU."""
    check_granularity(granularity)
    values = values.detach().flatten(1).cpu().double()  # some devices have no float64
    return values.sum(1) if granularity == 'filter' else values.flatten()


def kept_units(mask: Tensor, granularity: str) -> Tensor:
    """Units of a mask ``[F, ...]`` with anything left, boolean ``[n]`` on the CPU."""
    check_granularity(granularity)
    mask = mask.detach().flatten(1).cpu()
    return mask.any(1) if granularity == 'filter' else mask.flatten()


def mask_of_units(kept: Tensor, before: Tensor, granularity: str) -> Tensor:
    """Mask that keeps exactly the units ``kept``.

    A filter that stays keeps the weights that it had; one that is grown gets all of them.

    Args:
        kept: Boolean ``[n]``.
        before: Mask ``[F, ...]`` that is replaced.
        granularity: What a unit is, ``'filter'`` or ``'weight'``.

    Returns:
        Boolean, of the shape and on the device of ``before``.
    """
    check_granularity(granularity)
    kept = kept.to(before.device)
    if granularity == 'weight':
        return kept.view(before.shape)
    filters = kept.view(-1, *[1] * (before.ndim - 1))
    grown = filters & ~before.flatten(1).any(1).view(filters.shape)
    return (filters & before) | grown
