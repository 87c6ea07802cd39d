"""Layers that keep N of every M weights: the best of each group, and exchanges inside of groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmsw.errors import SparsityError

from .granularity import Granularity
from .layer_exchange import PathUnits
from .select import check_finite, keep_largest_number


def best_of_groups(scores: Tensor, granularity: Granularity) -> Tensor:
    """The ``N`` best of every ``M`` consecutive entries; of equal ones those of lower index.

    Args:
        scores: ``[n]``, finite; ``n`` divides by ``M``.
        granularity: ``N:M``.

    Returns:
        Boolean ``[n]``.
    """
    check_finite(scores)
    return (_ranks(scores.view(-1, granularity.second)) < granularity.first).flatten()


def check_groups(kept: Tensor, granularity: Granularity, name: str) -> None:
    """Raise ``SparsityError`` if a group of a layer keeps more than ``N`` of its ``M`` weights.

    Args:
        kept: Boolean ``[n]``.
        granularity: ``N:M``.
        name: Of the layer, for the message.
    """
    numbers = kept.view(-1, granularity.second).sum(1)
    over = int((numbers > granularity.first).sum())
    if over:
        raise SparsityError(
            f'{over} of {len(numbers)} groups of {name} keep more weights than {granularity} '
            'allows: choose another start or granularity'
        )


class GroupExchange:
    """The one path of a layer, every group of which keeps its number of weights.

    Of the weights that may go, the least important ones of the layer do: in each group at most as
    many as can grow there. Then every group grows as many as it dropped. The methods are those of
    :class:`mmsw.sparsity.layer_exchange.OwnMasks`.

    Args:
        path: The path.
        granularity: ``N:M``.
    """

    copies = 1

    def __init__(self, path: PathUnits, granularity: Granularity) -> None:
        self._path = path
        self._kept = path.kept.view(-1, granularity.second)
        self.room = int((~self._kept).sum())
        number = self._kept.sum(1, keepdim=True)
        most = torch.minimum(number, granularity.second - number)
        importance = path.importance.view_as(self._kept).masked_fill(~self._kept, -1.0)
        self._may_go = (self._kept & (_ranks(importance) >= number - most)).flatten()

    def dropped(self, number: Callable[[int, int], int]) -> list[int]:
        """Weights to drop: ``number(kept, total)``, but no more than the groups can exchange."""
        wanted = number(int(self._kept.sum()), self._kept.numel())
        return [min(wanted, int(self._may_go.sum()))]

    def exchange(
        self, dropped: Sequence[int], grown: None, growth: Callable[[int | None], Tensor]
    ) -> list[Tensor]:
        """Weights that are kept from now on: one boolean ``[n]``."""
        candidates = self._may_go.nonzero().flatten()
        stay = keep_largest_number(self._path.importance[candidates], len(candidates) - dropped[0])
        gone = torch.zeros_like(self._may_go)
        gone[candidates[~stay]] = True
        gone = gone.view_as(self._kept)
        scores = growth(0)
        check_finite(scores)
        scores = scores.view_as(self._kept).masked_fill(self._kept, -1.0)
        new = _ranks(scores) < gone.sum(1, keepdim=True)
        return [((self._kept & ~gone) | new).flatten()]


def _ranks(scores: Tensor) -> Tensor:
    """Rank of each entry in its row, 0 for the largest; of equal ones for that of lower index."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    ranks = torch.empty_like(order)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return ranks.scatter_(1, order, places)
