"""Optimizer state of weights that are removed or grown."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def reset_state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, where: Tensor) -> None:
    """Set an optimizer's state of single weights to zero, as if they had never been trained.

    Every tensor of the state that has the shape of the parameter counts (momentum, the moments of
    Adam and the like); state that all weights share, such as Adam's number of steps, stays. A
    gradient that waits for its step is set to zero as well.

    Args:
        optimizer: Any torch optimizer; one that has no state of the parameter is left alone.
        parameter: A parameter.
        where: Boolean, of its shape: which weights.
    """
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where.to(value.device), 0.0)
    if parameter.grad is not None:
        parameter.grad.masked_fill_(where.to(parameter.grad.device), 0.0)
