"""A plain depthwise convolution that may be large."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """Plain depthwise convolution with odd sides and "same" padding, whose gradient is right.

    On some CPUs, the gradient that torch gives for the weight of a large depthwise kernel is wrong
    where the convolution pads by many rows itself (seen up to torch 2.13.0, float32). So maps are
    padded beforehand on the CPU whenever gradients are on.

    Args:
        channels: Channels C.
        kernel_size: Rows and columns of the kernel, odd.
    """

    def __init__(self, channels: int, kernel_size: tuple[int, int]) -> None:
        padding = tuple(side // 2 for side in kernel_size)
        super().__init__(
            channels, channels, kernel_size, padding=padding, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        if not (x.is_cpu and torch.is_grad_enabled()):
            return super().forward(x)
        rows, columns = self.padding
        padded = F.pad(x, (columns, columns, rows, rows))
        return F.conv2d(padded, self.weight, groups=self.groups)
