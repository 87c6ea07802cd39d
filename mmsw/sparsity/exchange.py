"""One step of dynamic sparse training: drop the least important units, grow as many others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .select import keep_largest_number


def exchange_rate(step: int, steps: int, start: float, end: float) -> float:
    """Share of the kept units that an update exchanges: a half cosine from ``start`` to ``end``.

    Args:
        step: Iterations done.
        steps: Iterations over which the rate falls; ``end`` from then on.
        start: Rate at step 0.
        end: Rate at the last step.
    """
    done = min(1.0, step / steps) if steps else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def num_exchanged(kept: int, total: int, rate: float) -> int:
    """Units that an update exchanges in a layer.

    Args:
        kept: Units that the layer keeps.
        total: Units of the layer.
        rate: Share of the kept ones.

    Returns:
        ``round(rate * kept)``, but never all that are kept, nor more than there are to grow.
    """
    return max(0, min(round(rate * kept), kept - 1, total - kept))


def drop_and_grow(kept: Tensor, importance: Tensor, growth: Tensor, number: int) -> Tensor:
    """Exchange units of a layer; as many are kept afterwards as before.

    Units grow only where nothing was before, so what is dropped stays away for this time. Among
    equal scores, those of lower index are kept, and grown first.

    Args:
        kept: Boolean ``[n]``: the units kept so far.
        importance: ``[n]``: the kept units of the lowest values are dropped.
        growth: ``[n]``: the other units of the highest values are grown.
        number: How many, see :func:`num_exchanged`.

    Returns:
        Boolean ``[n]``: the units kept from now on.

    Raises:
        ValueError: If a score that matters is not finite, or ``number`` is more than can be dropped
            or grown.
    """
    num_old = int(kept.sum())
    if not 0 <= number <= min(num_old, len(kept) - num_old):
        raise ValueError(
            f'cannot exchange {number} units: {num_old} of {len(kept)} are kept, so at most '
            f'{min(num_old, len(kept) - num_old)} can be'
        )
    if number == 0:
        return kept.clone()
    new = torch.zeros_like(kept)
    old, others = kept.nonzero().flatten(), (~kept).nonzero().flatten()
    new[old[keep_largest_number(importance[old], num_old - number)]] = True
    new[others[keep_largest_number(growth[others], number)]] = True
    return new


def shared_units(kept: Sequence[Tensor], importance: Sequence[Tensor]) -> list[Tensor]:
    """One choice of units for all paths of a layer, with as many kept in all as before.

    Units are ranked by their importance summed over the paths; those that no path keeps come last.

    Args:
        kept: Per path, boolean ``[n]``.
        importance: Per path, ``[n]``, not negative; taken as zero where a unit is not kept.

    Returns:
        Per path, boolean ``[n]``. They are equal, but for the next units in rank, fewer than there
        are paths, which the first paths keep if the sum does not divide by the number of paths.

    Raises:
        ValueError: If an importance that matters is not finite.
    """
    score = sum(
        torch.where(units, values, 0.0) for units, values in zip(kept, importance, strict=True)
    )
    score = torch.where(torch.stack(list(kept)).any(0), score, -1.0)
    number, rest = divmod(sum(int(units.sum()) for units in kept), len(kept))
    return [keep_largest_number(score, number + (path < rest)) for path in range(len(kept))]
