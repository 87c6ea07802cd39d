"""Pixels as the input of a program: order of channels, normalisation and border, as a rule says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .image_rule import ImageRule


def program_input(images: Sequence[Tensor], rule: ImageRule) -> Tensor:
    """Make images of one size the input of a program, by the operations of the toolboxes.

    Args:
        images: ``[C, H, W]`` each, of any type, resized.
        rule: Of the program.

    Returns:
        ``[B, C, H + border, W + border]`` float32.
    """
    pixels = torch.stack(list(images))
    if rule.swap_channels and pixels.shape[1] == 3:
        pixels = pixels[:, [2, 1, 0]]
    pixels = pixels.float()
    if rule.mean is not None:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (rule.mean, rule.std))
        pixels = (pixels - mean) / std
    if rule.border is None:
        return pixels
    height, width = pixels.shape[2:]
    high, wide = rule.border.around(height, width)
    return F.pad(pixels, (0, wide - width, 0, high - height), value=rule.border.value)
