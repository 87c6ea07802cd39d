"""Normalisation layers of the network that neither torch nor mmcv provides."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsw.ops.backends import needs_plain_operators

_POSITIONS = 2048  # of a map that are normalised in one go: they stay in the cache


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of an NCHW map.

    Args:
        num_channels: Channels C.
        eps: Added to the variance.

    Attributes:
        channel_major: Work on the map as it lies in memory, for inference. Otherwise the result
            lies in memory with the channels last.
    """

    channel_major = False

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        if self.channel_major:
            weight, bias = self.weight.unsqueeze(1), self.bias.unsqueeze(1)
            return normalise_channels(x.flatten(2), self.eps, weight, bias).view(x.shape)
        x = F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        )
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


def normalise_channels(
    x: Tensor,
    eps: float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    in_place: bool = False,
) -> Tensor:
    """Layer normalisation over the channels of a map as it lies in memory.

    Args:
        x: ``[B, C, P]``.
        eps: Added to the variance.
        weight: ``[C, 1]``, or ``None`` for ones.
        bias: ``[C, 1]``; together with ``weight``.
        in_place: The map may be overwritten.
    """
    if not may_be_split(x):
        x = x - x.mean(1, keepdim=True)
        x = x * _reciprocal_deviation(x, eps)
        return x if weight is None else x * weight + bias
    out = x if in_place else torch.empty_like(x)
    for source, target in zip(x.split(_POSITIONS, 2), out.split(_POSITIONS, 2), strict=True):
        torch.sub(source, source.mean(1, keepdim=True), out=target)
        target.mul_(_reciprocal_deviation(target, eps))
        if weight is not None:
            target.mul_(weight).add_(bias)
    return out


def _reciprocal_deviation(centred: Tensor, eps: float) -> Tensor:
    wide = torch.promote_types(centred.dtype, torch.float32)
    variance = centred.to(wide).square().mean(1, keepdim=True)
    return (variance + eps).rsqrt().to(centred.dtype)


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
