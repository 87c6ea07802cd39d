"""Pruned weights are zero after every step, of optimizers too that move weights on their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mmsw.sparsity import masked_layers


def keep_zero_after_steps(net: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> list[Any]:
    """Set pruned weights to zero after each step.

    A gradient of zero is enough for optimizers that treat each weight by itself: SGD, Adam, Lion
    and the like leave such a weight where it is. Others mix the weights of a layer (Muon, Shampoo)
    or add noise.

    Args:
        net: Its masks are those of the moment of the step.
        optimizers: That train it. Optimizers of other libraries that are none of torch's are left
            as they are.

    Returns:
        Handles whose ``remove()`` ends it.
    """
    layers = [layer for _, layer in masked_layers(net)]

    @torch.no_grad()
    def after_step(*_: Any) -> None:
        for layer in layers:
            layer.weight.masked_fill_(~layer.mask, 0.0)

    return [
        optimizer.register_step_post_hook(after_step)
        for optimizer in optimizers
        if isinstance(optimizer, torch.optim.Optimizer)
    ]
