"""Normalisation layers of the network that neither torch nor mmcv provides."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsw.ops.backends import needs_plain_operators
from mmsw.ops.channel_norm import channel_norm


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of an NCHW map, which stays as it lies in memory.

    Args:
        num_channels: Channels C.
        eps: Added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        if x.stride(1) != 1:
            return channel_norm(x.flatten(2), self.weight, self.bias, self.eps).view(x.shape)
        x = x.permute(0, 2, 3, 1)  # the channels lie side by side
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Global response normalisation of NHWC maps (ConvNeXt V2, arXiv 2301.00808, section 3.2).

    Args:
        num_channels: Channels C.
        eps: Added to the mean response.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(num_channels))
        self.beta = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C]`` to the same shape."""
        response = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        response = response / (response.mean(dim=-1, keepdim=True) + self.eps)
        return x * (self.gamma * response + 1) + self.beta


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """A map that belongs to the caller times a factor, in place where no gradient is wanted."""
    in_place = not (x.requires_grad or factor.requires_grad) and x.dtype == factor.dtype
    return x.mul_(factor) if in_place else x * factor


def may_be_split(x: Tensor) -> bool:
    """Whether a map may be worked on piece by piece, in place: on the CPU, for inference.

    Compilers and exporters get one plain operator for all positions, and gradients one to follow.
    """
    return (
        x.is_cpu
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled('cpu')
        and not torch.compiler.is_compiling()
        and not needs_plain_operators(None)
    )
