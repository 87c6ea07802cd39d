"""Which units stay: exact numbers, of all layers together or of each one, never none of a layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmsw.errors import SparsityError

from .allocate import check_sparsity, num_kept
from .granularity import Granularity
from .group_exchange import best_of_groups
from .select import keep_largest_number


def number_to_keep(sizes: Mapping[str, int], sparsity: float, per_layer: bool) -> int:
    """Units that stay in all.

    Args:
        sizes: Units by layer name.
        sparsity: Share to prune, in ``[0, 1)``.
        per_layer: Whether every layer prunes this share.

    Returns:
        ``total - round(sparsity * total)``, of all layers together or summed over the layers; at
        least one in each.
    """
    if per_layer:
        return sum(num_kept(size, sparsity, 1) for size in sizes.values())
    return num_kept(sum(sizes.values()), sparsity, len(sizes))


def choose_units(
    scores: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    sparsity: float,
    granularity: Granularity,
    per_layer: bool,
) -> dict[str, Tensor]:
    """The units of the largest scores, as many as :func:`number_to_keep` says.

    What is pruned already stays pruned, and counts towards the sparsity. The best unit of a layer,
    and the ``N`` best of every group where the granularity is ``N:M``, stay before any other one.
    Among equal scores those of earlier layers and lower index stay. So at a higher sparsity, with
    the same scores, only units go that did not go before.

    Args:
        scores: By layer name, ``[n]``, finite and not negative.
        kept: By layer name, boolean ``[n]``: units that are not pruned yet.
        sparsity: Share of the units to prune, in ``[0, 1)``.
        granularity: What a unit is.
        per_layer: Whether every layer prunes this share, and not all layers together.

    Returns:
        By layer name, boolean ``[n]``, True = keep.

    Raises:
        SparsityError: If a score is not finite; it names the layer.
        ValueError: If the sparsity is out of range, or more than groups prune.
    """
    check_sparsity(sparsity)
    most = granularity.most_sparsity
    if most is not None and sparsity > float(most) + 1e-9:
        raise ValueError(f'{granularity} prunes at most {float(most):g}, got {sparsity}')
    ranked = {}
    for name, score in scores.items():
        try:
            ranked[name] = _ranked(score, kept[name], granularity)
        except SparsityError as error:
            raise SparsityError(f'{name}: {error}') from error
    if per_layer:
        new = {n: keep_largest_number(r, num_kept(len(r), sparsity, 1)) for n, r in ranked.items()}
    else:
        sizes = [len(ranks) for ranks in ranked.values()]
        flat = keep_largest_number(
            torch.cat(list(ranked.values())), num_kept(sum(sizes), sparsity, len(sizes))
        )
        new = dict(zip(ranked, flat.split(sizes), strict=True))
    return {name: keep & kept[name] for name, keep in new.items()}


def _ranked(scores: Tensor, kept: Tensor, granularity: Granularity) -> Tensor:
    """Scores in which what must stay is before, and what is pruned behind everything else."""
    scores = scores.masked_fill(~kept, -1.0)
    if granularity.is_of_groups:  # places of a group that are pruned already go to no other group
        first = best_of_groups(scores, granularity)
    else:
        first = keep_largest_number(scores, 1) & kept
    return scores.masked_fill(first, torch.finfo(scores.dtype).max)
