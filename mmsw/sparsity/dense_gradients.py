"""Gradients of masked weights as they would be without the mask: what pruned weights ask for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class DenseGradients:
    """Watches masked layers and sums up their dense gradients over backward passes.

    The layers' own gradients stay exactly zero where weights are pruned. Gradients come as they
    are: multiplied by a loss scale if there is one, and of this process alone.

    A network that is compiled keeps the hooks that it has when it runs for the first time. Watch it
    once before then, and :meth:`pause` instead of :meth:`stop` in between.

    Args:
        layers: Masked layers by name, see :func:`mmsw.sparsity.masked_layers`.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = dict(layers)
        self.sums: dict[str, Tensor] = {}
        self._watching = False
        self._handles: list[RemovableHandle] = []

    def watch(self) -> None:
        """Forget what was seen, and watch from now on."""
        self.sums = {}
        self._watching = True
        if not self._handles:
            self._handles = [self._hook(name, layer) for name, layer in self.layers.items()]

    def pause(self) -> None:
        """Watch no longer, but leave the hooks where they are; the sums stay."""
        self._watching = False

    def stop(self) -> None:
        """Watch no longer, and take the hooks away; the sums stay."""
        self.pause()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, name: str, layer: nn.Module) -> RemovableHandle:
        @torch.compiler.disable  # it would be compiled once per layer
        def add(grad: Tensor) -> None:
            self._add(name, grad)

        return layer.observe_gradients(add)

    @torch.no_grad()
    def _add(self, name: str, grad: Tensor) -> None:
        if self._watching:
            seen = self.sums.get(name)
            self.sums[name] = grad.detach().clone() if seen is None else seen + grad.detach()
