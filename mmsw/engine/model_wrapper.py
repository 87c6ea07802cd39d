"""The network inside of what mmengine wraps it in."""

from __future__ import annotations

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without the wrapper that several processes train it in."""
    return model.module if is_model_wrapper(model) else model
