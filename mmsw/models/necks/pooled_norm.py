"""The end of the published network before its classifier: pool, then normalise."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmsw.registration import register

_EPS = 1e-6


@register(MODELS)
class PooledNorm(BaseModule):
    """Mean over the positions of the last map, then layer normalisation over its channels.

    Needs a :class:`~mmsw.models.ShiftWiseNet` with ``output_norm=False``: normalising every
    position first, as for dense prediction, is another function. No OpenMMLab toolbox is needed; in
    mmpretrain's ``ImageClassifier`` it is the ``neck`` before a ``LinearClsHead``.

    Args:
        in_channels: Channels of the last map.
        init_cfg: As for mmengine's modules.
    """

    def __init__(self, in_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.norm = nn.LayerNorm(in_channels, eps=_EPS)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Maps ``[B, C, H, W]``, of which the last counts, to one tensor ``[B, C]``."""
        return (self.norm(maps[-1].mean((2, 3))),)
