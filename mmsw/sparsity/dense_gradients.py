"""Gradients of masked weights as they would be without the mask: what pruned weights ask for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class DenseGradients:
    """Watches masked layers and sums up their dense gradients over backward passes.

    The layers' own gradients stay exactly zero where weights are pruned. Gradients come as they
    are: multiplied by a loss scale if there is one, and of this process alone.

    Args:
        layers: Masked layers by name, see :func:`mmsw.sparsity.masked_layers`.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = dict(layers)
        self.sums: dict[str, Tensor] = {}
        self._handles: list = []

    def watch(self) -> None:
        """Forget what was seen, and watch from now on."""
        self.stop()
        self.sums = {}
        for name, layer in self.layers.items():
            gate = getattr(layer, 'mask_gate', None)
            if gate is not None:
                gate.observe = lambda grad, name=name: self._add(name, grad)
            else:
                self._handles.append(
                    layer.register_forward_hook(
                        lambda layer, args, out, name=name: self._on_forward(name, out)
                    )
                )

    def stop(self) -> None:
        """Watch no longer; the sums stay."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for layer in self.layers.values():
            if getattr(layer, 'mask_gate', None) is not None:
                layer.mask_gate.observe = None

    def _on_forward(self, name: str, out: Tensor) -> None:
        # A copy would be torn apart from its hook where activations are recomputed; the masked
        # weight itself is recomputed too, and hooked anew then.
        if out.requires_grad:
            out.register_hook(lambda grad: self._add(name, grad))

    @torch.no_grad()
    def _add(self, name: str, grad: Tensor) -> None:
        seen = self.sums.get(name)
        self.sums[name] = grad.detach().clone() if seen is None else seen + grad.detach()
