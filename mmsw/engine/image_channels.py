"""The channels of the images of a network: how many there are, and in which order they come."""

from __future__ import annotations

from torch import nn

from .model_wrapper import unwrapped

_USUAL = 3
_SWAPS = ('channel_conversion', '_channel_conversion')  # of mmseg; of mmdet and onedl's mmseg


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


def swaps_channels(preprocessor: nn.Module | None) -> bool:
    """Whether a data preprocessor turns images of the order BGR into RGB, or back."""
    return any(bool(getattr(preprocessor, name, False)) for name in _SWAPS)
