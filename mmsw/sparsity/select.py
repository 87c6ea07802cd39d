"""Which filters to keep: plain functions from weights to masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsw.errors import SparsityError

from .allocate import check_sparsity
from .layer_masks import masked_layers
from .units import kept_units, unit_norms


def keep_largest(scores: Tensor, sparsity: float) -> Tensor:
    """Mask of the entries with the largest scores.

    Exactly ``round(sparsity * n)`` of the ``n`` entries are dropped, but never all of them. Among
    equal scores those of lower index are kept.

    Args:
        scores: ``[n]``, at least one, finite.
        sparsity: Share to drop, in ``[0, 1)``.

    Returns:
        Boolean ``[n]``, True = keep.

    Raises:
        ValueError: If an argument has a value that makes no sense.
    """
    check_sparsity(sparsity)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f'scores must be a vector of at least one entry, got {list(scores.shape)}')
    return keep_largest_number(scores, max(1, len(scores) - round(sparsity * len(scores))))


def keep_largest_number(scores: Tensor, number: int) -> Tensor:
    """Mask of a given number of entries with the largest scores; see :func:`keep_largest`."""
    check_finite(scores)
    keep = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if number < 1:
        return keep
    least = scores.kthvalue(max(1, len(scores) - number + 1)).values  # no sorting of millions
    keep |= scores > least
    ties = (scores == least).nonzero().flatten()
    keep[ties[: number - int(keep.sum())]] = True
    return keep


def check_finite(scores: Tensor) -> None:
    """Raise ``SparsityError`` unless all scores are finite."""
    if not bool(torch.isfinite(scores).all()):
        raise SparsityError(
            'scores must be finite; a network with NaN or infinite weights has none: its training '
            'diverged'
        )


def magnitude_masks(net: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Masks that drop, in every layer alike, the whole filters of the smallest magnitude.

    Magnitude is the L2 norm of the unpruned weights of a small kernel. What is pruned already stays
    pruned and counts towards ``sparsity``; every layer keeps at least one filter.

    Args:
        net: A network; its layers are left as they are, see :func:`mmsw.sparsity.set_masks`.
        sparsity: Share of the filters of each path of each layer to drop, in ``[0, 1)``, rounded to
            whole filters.

    Returns:
        By layer name, a mask of the shape of the weight; True = keep.

    Raises:
        ValueError: If ``sparsity`` is out of range or a layer has weights that are not finite.
    """
    new = {}
    for name, layer in masked_layers(net):
        weight = layer.weight.detach().masked_fill(~layer.mask, 0.0)
        scores = unit_norms(weight, 'filter')
        scores[
            ~kept_units(layer.mask, 'filter')
        ] = -1.0  # behind filters that only happen to be zero
        try:
            keep = keep_largest(scores, sparsity)
        except ValueError as error:
            raise type(error)(f'{name}: {error}') from error
        keep = keep.view(-1, *[1] * (layer.mask.ndim - 1))
        new[name] = layer.mask & keep.to(layer.mask.device)
    return new
