"""Heads that look at every position of a pyramid: RPN and RetinaNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .detector_boxes import BoxCoder, Size
from .detector_operators import Operators


class AnchorScan(nn.Module):
    """The best boxes of each level by an anchor head of mmdet, decoded.

    Args:
        head: ``RPNHead`` or ``RetinaHead``.
        count: Most boxes of a level.
        floor: Only scores above it count.
    """

    def __init__(self, head: nn.Module, count: int, floor: float) -> None:
        super().__init__()
        self.head = head
        self.count = count
        self.floor = floor
        self.coder = BoxCoder.of(head.bbox_coder)
        generator = head.prior_generator
        self.strides = generator.strides
        self.anchors = [base.tolist() for base in generator.base_anchors]

    def forward(
        self, features: Sequence[Tensor], size: Size, operators: Operators
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find boxes.

        Args:
            features: ``[1, C, H, W]`` of each level.
            size: ``(H, W)`` of the image without padding.
            operators: Their form.

        Returns:
            ``[L, count, 4]`` boxes, ``[L, count]`` scores, negative where a level has fewer boxes,
            and ``[L, count]`` labels.
        """
        found = []
        for level, (scores, offsets) in enumerate(zip(*self.head(features), strict=True)):
            found.append(self._best(level, scores.float(), offsets.float(), operators))
        anchors, offsets, scores, labels = (torch.stack(part) for part in zip(*found, strict=True))
        return self.coder.decode(anchors, offsets, size), scores, labels

    def _best(
        self, level: int, scores: Tensor, offsets: Tensor, operators: Operators
    ) -> tuple[Tensor, ...]:
        """Anchors, offsets, scores and labels of the best of one level."""
        columns = scores.shape[-1]
        classes = self.head.cls_out_channels
        scores = scores[0].permute(1, 2, 0).reshape(-1, classes)
        if self.head.use_sigmoid_cls:
            scores = scores.sigmoid()
        else:
            scores, classes = scores.softmax(-1)[:, :-1], classes - 1
        best, places = operators.best(scores.flatten(), self.count, self.floor)
        rows, labels = _divided(places, classes)
        offsets = offsets[0].permute(1, 2, 0).reshape(-1, 4).index_select(0, rows)
        return self._anchors(level, rows, columns), offsets, best, labels

    def _anchors(self, level: int, rows: Tensor, columns: int) -> Tensor:
        """Anchors ``[N, 4]`` by their places: row by row, those of a position together."""
        base = torch.tensor(self.anchors[level], device=rows.device)
        position, kind = _divided(rows, len(base))
        down, across = _divided(position, columns)
        wide, high = self.strides[level]
        shift = torch.stack([across * wide, down * high], -1)
        return base.index_select(0, kind) + shift.to(base.dtype).repeat(1, 2)


def _divided(numbers: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotients and rests of numbers from 0 on."""
    quotients = numbers // by
    return quotients, numbers - quotients * by
