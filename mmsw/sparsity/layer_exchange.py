"""One exchange in one layer, whose paths go their own ways or share one mask.

Both classes count alike: ``room`` is what can grow in the whole layer, ``copies`` is how many units
go where :meth:`exchange` is told to drop one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .exchange import drop_and_grow, even_counts, shared_units


@dataclass(frozen=True)
class PathUnits:
    """Units of a path before an exchange; all are vectors ``[n]``.

    Attributes:
        kept: Boolean: those that are kept.
        importance: The lowest ones go.
        sums: Sum of the weights of each, whose sign decides if ``prune='set'``; else ``None``.
    """

    kept: Tensor
    importance: Tensor
    sums: Tensor | None

    @property
    def positive(self) -> Tensor | None:
        """Whether the units are positive, if that decides anything."""
        return None if self.sums is None else self.sums >= 0


class OwnMasks:
    """Paths that exchange each for itself.

    Args:
        paths: Units of the paths.
    """

    copies = 1

    def __init__(self, paths: Sequence[PathUnits]) -> None:
        self._paths = paths
        self._sizes = [(int(path.kept.sum()), len(path.kept)) for path in paths]
        self.room = sum(total - kept for kept, total in self._sizes)

    def dropped(self, number: Callable[[int, int], int]) -> list[int]:
        """Units to drop: ``number(kept, total)`` for each path."""
        return [number(kept, total) for kept, total in self._sizes]

    def exchange(
        self, dropped: Sequence[int], grown: int | None, growth: Callable[[int | None], Tensor]
    ) -> list[Tensor]:
        """Units that the paths keep from now on.

        Args:
            dropped: As :meth:`dropped` says, or less.
            grown: Units that grow in all, at most ``room``; ``None``: in each path as many as go.
                A number is shared so that the paths keep numbers as equal as can be.
            growth: Gives the scores for growth of a path by its index; ``None``: of all together.

        Returns:
            Per path, boolean ``[n]``.
        """
        parts = list(dropped)
        if grown is not None:
            left = [kept - gone for (kept, _), gone in zip(self._sizes, dropped, strict=True)]
            most = [total - gone for (_, total), gone in zip(self._sizes, dropped, strict=True)]
            counts = even_counts(left, most, sum(left) + grown)
            parts = [count - rest for count, rest in zip(counts, left, strict=True)]
        return [
            drop_and_grow(
                path.kept, path.importance, growth(index), gone, parts[index], path.positive
            )
            for index, (path, gone) in enumerate(zip(self._paths, dropped, strict=True))
        ]


class SharedMask:
    """Paths that come to share one mask, and exchange the same units.

    If their sum does not divide by the number of paths, the first paths keep one more unit, a
    spare. It takes no part in the exchange, unless so many grow that all paths get it.

    Args:
        paths: Units of the paths, at least two.
    """

    def __init__(self, paths: Sequence[PathUnits]) -> None:
        self.copies = len(paths)
        kept, importance = [path.kept for path in paths], [path.importance for path in paths]
        shared = torch.stack(shared_units(kept, importance))
        self._common, self._spare = shared.all(0), shared.any(0) & ~shared.all(0)
        self._holders = int(shared.sum()) % self.copies  # paths that have the spare
        self._importance = sum(torch.where(p.kept, p.importance, 0.0) for p in paths)
        signed = [path.sums for path in paths if path.sums is not None]
        self._positive = sum(signed) >= 0 if signed else None
        self.room = shared.numel() - int(shared.sum())

    def dropped(self, number: Callable[[int, int], int]) -> list[int]:
        """Units to drop in every path: ``number(kept, total)`` of the shared mask."""
        spare = int(self._spare.sum())
        return [number(int(self._common.sum()), len(self._common) - spare)]

    def exchange(
        self, dropped: Sequence[int], grown: int | None, growth: Callable[[int | None], Tensor]
    ) -> list[Tensor]:
        """Units that the paths keep from now on; see :meth:`OwnMasks.exchange`."""
        (gone,) = dropped
        grown = self.copies * gone if grown is None else grown
        everywhere, extra = divmod(grown, self.copies)
        # The spare comes last among what can grow: it is there already.
        scores = torch.where(self._spare, -1.0, growth(None))

        def exchanged(number: int) -> Tensor:
            return drop_and_grow(
                self._common, self._importance, scores, gone, number, self._positive
            )

        common, spare, holders = exchanged(everywhere), self._spare, self._holders + extra
        if self._holders and holders >= self.copies:
            common, spare = common | spare, torch.zeros_like(spare)
            holders -= self.copies
        if holders and not bool(spare.any()):
            spare = exchanged(everywhere + 1) & ~exchanged(everywhere)
        return [common | spare if path < holders else common for path in range(self.copies)]
