"""Stem and downsampling layers of the two published generations."""

from __future__ import annotations

from torch import nn

from mmsw.models.layers import LayerNorm2d


def downsample_v1(stage: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """From one stage's map to the next one's, stage 0 from the image: stride 4, then 2."""
    if stage == 0:
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 4, stride=4), LayerNorm2d(out_channels)
        )
    return nn.Sequential(
        LayerNorm2d(in_channels), nn.Conv2d(in_channels, out_channels, 2, stride=2)
    )


def downsample_v2(stage: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """The same with overlapping windows, and two convolutions in the stem."""
    if stage == 0:
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels // 2, 3, stride=2, padding=1),
            LayerNorm2d(out_channels // 2),
            nn.GELU(),
            nn.Conv2d(out_channels // 2, out_channels, 3, stride=2, padding=1),
            LayerNorm2d(out_channels),
        )
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1), LayerNorm2d(out_channels)
    )
