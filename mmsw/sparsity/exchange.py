"""One step of dynamic sparse training: drop the least important units, grow others."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from .allocate import apportion
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


def num_dropped(kept: int, rate: float) -> int:
    """Units that an update drops of ``kept``: ``round(rate * kept)``, but never all of them."""
    return max(0, min(round(rate * kept), kept - 1))


def num_exchanged(kept: int, total: int, rate: float) -> int:
    """Units that an update exchanges in a layer.

    Args:
        kept: Units that the layer keeps.
        total: Units of the layer.
        rate: Share of the kept ones.

    Returns:
        ``round(rate * kept)``, but never all that are kept, nor more than there are to grow.
    """
    return min(num_dropped(kept, rate), total - kept)


def drop_and_grow(
    kept: Tensor,
    importance: Tensor,
    growth: Tensor,
    number: int,
    num_grown: int | None = None,
    positive: Tensor | None = None,
) -> Tensor:
    """Exchange units of a layer.

    Units grow only where nothing was before, so what is dropped stays away for this time. Among
    equal scores, those of lower index are kept, and grown first.

    Args:
        kept: Boolean ``[n]``: the units kept so far.
        importance: ``[n]``: the kept units of the lowest values are dropped.
        growth: ``[n]``: the other units of the highest values are grown.
        number: How many are dropped, see :func:`num_exchanged`.
        num_grown: How many are grown; ``None``: as many, so that the layer keeps its number.
        positive: Boolean ``[n]``, the signs of the units. With them, positive and negative units
            are dropped in proportion to their numbers (SET, Mocanu et al. 2018, arXiv 1707.04780):
            the smallest positive and the largest negative ones. Units of no importance at all go
            before them.

    Returns:
        Boolean ``[n]``: the units kept from now on.

    Raises:
        ValueError: If a score that matters is not finite, or ``number`` is more than can be dropped
            or grown.
    """
    num_old = int(kept.sum())
    free = len(kept) - num_old
    num_grown = number if num_grown is None else num_grown
    if not (0 <= number <= num_old and 0 <= num_grown <= free):
        what = (
            f'exchange {number} units'
            if num_grown == number
            else f'drop {number} units and grow {num_grown}'
        )
        raise ValueError(
            f'cannot {what}: {num_old} of {len(kept)} are kept, so at most {num_old} can be '
            f'dropped and {free} grown'
        )
    new = kept.clone()
    if number:
        old = kept.nonzero().flatten()
        signs = None if positive is None else positive[old]
        new[old[_dropped(importance[old], number, signs)]] = False
    if num_grown:
        others = (~kept).nonzero().flatten()
        new[others[keep_largest_number(growth[others], num_grown)]] = True
    return new


def _dropped(importance: Tensor, number: int, positive: Tensor | None) -> Tensor:
    """Which ``number`` units go, boolean ``[n]``; see :func:`drop_and_grow`."""
    if positive is None:
        return ~keep_largest_number(importance, len(importance) - number)
    idle = importance == 0
    groups = {'idle': idle, 'positive': ~idle & positive, 'negative': ~idle & ~positive}
    sizes = {name: int(group.sum()) for name, group in groups.items()}
    first = min(number, sizes.pop('idle'))
    parts = {'idle': first, **apportion(number - first, sizes, sizes)}
    dropped = torch.zeros_like(idle)
    for name, group in groups.items():
        units = group.nonzero().flatten()
        stay = keep_largest_number(importance[units], len(units) - parts[name])
        dropped[units[~stay]] = True
    return dropped


def even_counts(low: Sequence[int], high: Sequence[int], total: int) -> list[int]:
    """Numbers as equal as their bounds allow, with a given sum.

    Args:
        low: The least that each can be.
        high: The most that each can be.
        total: The sum, between those of the bounds.

    Returns:
        The numbers; of those that could be equal, the first ones are larger by one if need be.
    """

    def at(level: int) -> list[int]:
        return [min(max(level, lo), hi) for lo, hi in zip(low, high, strict=True)]

    level = bisect_right(range(max(high) + 1), total, key=lambda level: sum(at(level))) - 1
    counts = at(level)
    for index, most in enumerate(high):
        if sum(counts) < total and counts[index] == level < most:
            counts[index] += 1
    return counts


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
