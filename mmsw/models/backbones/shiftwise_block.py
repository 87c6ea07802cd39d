"""Residual blocks of the two published generations of the shift-wise network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmsw.models.layers import GlobalResponseNorm, ShiftWiseConv2d, SqueezeExcitation

_EXPANSION = 4
_SQUEEZE = 4
_EPS = 1e-6


class ShiftWiseBlock(nn.Module, ABC):
    """What both generations share: residual, layer scale, stochastic depth, checkpointing.

    Args:
        channels: Channels C.
        drop_path_rate: Probability of skipping the block for a sample.
        layer_scale_init_value: Initial layer scale; 0 or less for none.
        with_cp: Recompute the block in the backward pass to save memory.
        shift_wise: Keyword arguments of :class:`ShiftWiseConv2d`.
    """

    def __init__(
        self,
        channels: int,
        drop_path_rate: float,
        layer_scale_init_value: float,
        with_cp: bool,
        shift_wise: dict,
    ) -> None:
        super().__init__()
        self.shift_wise = ShiftWiseConv2d(channels, channels, **shift_wise)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.with_cp = with_cp
        self.gamma = None
        if layer_scale_init_value > 0:
            self.gamma = nn.Parameter(torch.full((channels,), float(layer_scale_init_value)))

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """The residual branch before layer scale, ``[B, C, H, W]`` to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(
                self._residual,
                x,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), _keep_running_statistics(self)),
            )
        return self._residual(x)

    def _residual(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        if self.gamma is not None:
            out = out * self.gamma.view(1, -1, 1, 1)
        return x + self.drop_path(out)


class ShiftWiseBlockV1(ShiftWiseBlock):
    """First generation: shift-wise, layer norm, two linear layers (ConvNeXt style)."""

    def __init__(self, channels: int, norm_cfg: dict, **kwargs) -> None:
        super().__init__(channels, **kwargs)
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        self.pointwise_conv1 = nn.Linear(channels, _EXPANSION * channels)
        self.act = nn.GELU()
        self.pointwise_conv2 = nn.Linear(_EXPANSION * channels, channels)

    def branch(self, x: Tensor) -> Tensor:
        x = self.norm(self.shift_wise(x).permute(0, 2, 3, 1))
        x = self.pointwise_conv2(self.act(self.pointwise_conv1(x)))
        return x.permute(0, 3, 1, 2)


class ShiftWiseBlockV2(ShiftWiseBlock):
    """Second generation: shift-wise, norm, channel attention, two linear layers with GRN, norm."""

    def __init__(self, channels: int, norm_cfg: dict, **kwargs) -> None:
        super().__init__(channels, **kwargs)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.se = SqueezeExcitation(channels, channels // _SQUEEZE)
        self.pointwise_conv1 = nn.Linear(channels, _EXPANSION * channels)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(_EXPANSION * channels, eps=_EPS)
        self.pointwise_conv2 = nn.Linear(_EXPANSION * channels, channels, bias=False)
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]

    def branch(self, x: Tensor) -> Tensor:
        x = self.se(self.norm(self.shift_wise(x))).permute(0, 2, 3, 1)
        x = self.pointwise_conv2(self.grn(self.act(self.pointwise_conv1(x))))
        return self.norm2(x.permute(0, 3, 1, 2))


@contextmanager
def _keep_running_statistics(module: nn.Module) -> Iterator[None]:
    """Recomputing a block must not count its batch a second time: its norms count on copies.

    The forward pass saves the statistics for the backward pass, so the norms need some here too.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]
    counted = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, counted, strict=True):
        norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, counted, strict=True):
            norm._buffers.update(buffers)
