"""Multiply-adds of a network by the weights that its masks keep."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mmsw.analysis.complexity import complexity
from mmsw.sparsity import masked_layers
from mmsw.wording import short

from ..complexity_report import SHAPES, padded


class NetworkWork:
    """Counts for one image.

    Args:
        model: The network.
        shape: ``(H, W)`` or ``(channels, H, W)``; ``None`` for the size of its toolbox.
        toolbox: Its default scope.

    Attributes:
        shape: ``(channels, H, W)`` that was counted, or why nothing could be.
        layers: Multiply-adds by layer name if nothing were pruned; without the filters of
            shift-wise layers, whose multiply-adds depend on their places.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int] | None, toolbox: str) -> None:
        self._model, self._size = model, shape or SHAPES.get(toolbox)
        self.shape: tuple[int, int, int] | str = 'not counted yet'
        self.layers: dict[str, int] = {}

    def count(self) -> tuple[int, int] | None:
        """Multiply-adds of the network: if nothing were pruned, and of the weights it keeps now.

        Returns:
            Both numbers, or ``None`` where they cannot be counted.
        """
        if self._size is None:
            self.shape = 'say for which images, with --shape H W'
            return None
        try:
            found = complexity(self._model, padded(self._size, self._model))
        except (ValueError, RuntimeError) as error:
            self.shape = short(error)
            return None
        self.shape = found.shape
        costs = {name: cost.macs_dense for name, cost in found.modules.items()}
        self.layers = {name: cost for name, cost in costs.items() if cost}
        ordinary = {n: la for n, la in masked_layers(self._model) if hasattr(la, 'mask_gate')}
        kept = 0.0
        for name, cost in found.modules.items():
            mask = ordinary[name].mask if name in ordinary else None
            share = 1.0 if mask is None else int(mask.sum()) / mask.numel()
            kept += cost.macs_used if mask is None else cost.macs_dense * share
        return found.macs_dense, round(kept)
