"""Channel attention of the second network generation."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation with ReLU and sigmoid (arXiv 1709.01507, section 3).

    mmcv-style toolboxes carry a variant with a hard sigmoid and other key names; checkpoints of the
    shift-wise network need the plain one.

    Args:
        channels: Channels C of the map.
        squeezed_channels: Channels between the two 1x1 convolutions.
    """

    def __init__(self, channels: int, squeezed_channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, squeezed_channels, 1)
        self.act = nn.ReLU()  # in place it would refuse hooks on the backward pass
        self.up = nn.Conv2d(squeezed_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        scale = self.up(self.act(self.down(x.mean(dim=(2, 3), keepdim=True))))
        return x * scale.sigmoid()
