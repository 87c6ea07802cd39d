"""ConvNeXt in plain torch: a contender where mmpretrain, which has one, is absent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmsw.models.layers import LayerNorm2d

_EPS = 1e-6
_SIDE = 7
_EXPANSION = 4
_INIT_STD = 0.02


class ConvNeXt(BaseModule):
    """ConvNeXt (arXiv 2201.03545) with layer-normalised maps at strides 4, 8, 16 and 32.

    Args:
        depths: Blocks of each stage.
        dims: Channels of each stage.
        layer_scale_init_value: What a block's output is multiplied by at the start.
        init_cfg: Of mmengine; it is applied to what :meth:`init_weights` draws.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        layer_scale_init_value: float = 1e-6,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.stages, self.norms = nn.ModuleList(), nn.ModuleList()
        previous = 3
        for stage, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            side = 2 if stage else 4
            down: list[nn.Module] = [nn.Conv2d(previous, dim, side, stride=side)]
            down.insert(0 if stage else 1, LayerNorm2d(previous if stage else dim))
            blocks = [_Block(dim, layer_scale_init_value) for _ in range(depth)]
            self.stages.append(nn.Sequential(*down, *blocks))
            self.norms.append(LayerNorm2d(dim))
            previous = dim

    @torch.no_grad()
    def init_weights(self) -> None:
        """Redraw the weights as a training from scratch begins."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=_INIT_STD)
                nn.init.zeros_(module.bias)
        super().init_weights()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images ``[B, 3, H, W]`` to maps ``[B, dims[i], H / s, W / s]``."""
        maps = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            maps.append(norm(x))
        return tuple(maps)


class _Block(nn.Module):
    """Depthwise 7 x 7, layer norm, two linear layers with GELU, layer scale, residual."""

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, _SIDE, padding=_SIDE // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.expand = nn.Linear(dim, _EXPANSION * dim)
        self.reduce = nn.Linear(_EXPANSION * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        out = self.reduce(F.gelu(self.expand(out))) * self.scale
        return x + out.permute(0, 3, 1, 2)
