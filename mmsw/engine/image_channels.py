"""How many channels the images of a network have."""

from __future__ import annotations

from torch import nn

from .model_wrapper import unwrapped

_USUAL = 3


def image_channels(model: nn.Module) -> int:
    """Input channels of the first convolution of the backbone, or of a model without one.

    3 where there is no convolution.
    """
    model = unwrapped(model)
    start = getattr(model, 'backbone', model)
    if not isinstance(start, nn.Module):
        start = model
    stems = (module for module in start.modules() if isinstance(module, nn.Conv2d))
    return next((stem.in_channels for stem in stems), _USUAL)
