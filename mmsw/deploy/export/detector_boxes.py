"""Boxes of a detector: decoded, cut at the border of the image, and the best of each object."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .detector_operators import Operators
from .nms import ABSENT

Size = tuple[int, int]


class BoxCoder(NamedTuple):
    """How offsets move a box: mmdet's ``DeltaXYWHBBoxCoder``.

    Attributes:
        means: Added to offsets that were divided by ``stds``.
        stds: Unit of each offset.
        clips: Whether boxes end at the border of the image.
        reach: Farthest that a centre moves, in pixels; ``None`` for no bound.
    """

    means: tuple[float, ...]
    stds: tuple[float, ...]
    clips: bool
    reach: float | None

    @classmethod
    def of(cls, coder: Any) -> BoxCoder:
        """The numbers of a coder of mmdet."""
        reach = float(coder.ctr_clamp) if coder.add_ctr_clamp else None
        return cls(tuple(coder.means), tuple(coder.stds), coder.clip_border, reach)

    def decode(self, boxes: Tensor, offsets: Tensor, size: Size) -> Tensor:
        """Move boxes by offsets.

        Args:
            boxes: ``[..., 4]`` x1 y1 x2 y2.
            offsets: ``[..., 4]`` x, y, width, height.
            size: ``(H, W)`` of the image without padding.

        Returns:
            ``[..., 4]``, inside of the image if :attr:`clips`.
        """
        offsets = offsets * offsets.new_tensor(self.stds) + offsets.new_tensor(self.means)
        shift, growth = offsets.split(2, -1)
        corner, opposite = boxes.split(2, -1)
        centre, extent = (corner + opposite) * 0.5, opposite - corner
        shift = extent * shift
        most = abs(math.log(16 / 1000))  # as far as mmdet lets sides grow or shrink
        if self.reach is not None:
            shift = shift.clamp(-self.reach, self.reach)
            growth = growth.clamp(max=most)
        else:
            growth = growth.clamp(-most, most)
        centre, extent = centre + shift, extent * growth.exp()
        decoded = torch.cat([centre - extent * 0.5, centre + extent * 0.5], -1)
        return clipped(decoded, size) if self.clips else decoded


def clipped(boxes: Tensor, size: Size) -> Tensor:
    """Boxes ``[..., 4]`` cut at the border of an image of ``(H, W)`` pixels."""
    border = torch.stack(
        [torch.scalar_tensor(side, dtype=boxes.dtype, device=boxes.device) for side in size[::-1]]
    )
    return torch.minimum(boxes.clamp(min=0), border.repeat(2))


class Suppression(NamedTuple):
    """How many boxes stay, and which overlap too much.

    Attributes:
        iou_threshold: Of two boxes of one kind that overlap by more, the better one stays.
        limit: At most so many stay, of all kinds.
        across_kinds: Whether boxes of different kinds suppress each other too.
    """

    iou_threshold: float
    limit: int
    across_kinds: bool

    def best(
        self, boxes: Tensor, scores: Tensor, kinds: Tensor, operators: Operators
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes that stay, by falling score.

        Boxes of different kinds are moved apart before they are compared, as mmcv's
        ``batched_nms`` does, whose rounding this keeps.

        Args:
            boxes: ``[G, N, 4]``: boxes of different groups are of different kinds.
            scores: ``[G, N]``; negative where there is no box.
            kinds: ``[G, N]`` or ``[1, N]`` int64, class or level.
            operators: Their form.

        Returns:
            ``[M, 4]`` boxes, ``[M]`` scores and ``[M]`` places among the G * N given ones.
        """
        boxes = torch.where((scores >= 0).unsqueeze(-1), boxes, 0.0)
        apart = boxes
        if not self.across_kinds:
            apart = boxes + (kinds * (boxes.max() + 1)).unsqueeze(-1)
        kept = operators.nms(apart, scores, self.iou_threshold, self.limit)
        scores = torch.where(kept, scores, ABSENT).flatten()
        scores, places = operators.best(scores, self.limit, ABSENT / 2)
        (found,) = torch.where(scores >= 0)
        places = places.index_select(0, found)
        return boxes.flatten(0, 1).index_select(0, places), scores.index_select(0, found), places


def detections(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    suppression: Suppression,
    operators: Operators,
) -> tuple[Tensor, Tensor, Tensor]:
    """The last step of a detector: one box for each object.

    Args:
        boxes: ``[N, 4]``; N may be 0.
        scores: ``[N]``.
        labels: ``[N]`` int64.
        suppression: What stays.
        operators: Their form.

    Returns:
        The same of those that stay, by falling score.
    """
    # A row that is no box keeps runtimes from what they may not know: the largest of nothing.
    boxes = torch.cat([boxes, boxes.new_zeros(1, 4)]).unsqueeze(0)
    scores = torch.cat([scores, scores.new_full((1,), ABSENT)]).unsqueeze(0)
    labels = torch.cat([labels, labels.new_zeros(1)]).unsqueeze(0)
    boxes, scores, places = suppression.best(boxes, scores, labels, operators)
    return boxes, scores, labels[0].index_select(0, places)


def large_enough(boxes: Tensor, least: float) -> Tensor:
    """Which boxes ``[..., 4]`` are wider and higher than a number of pixels; all if negative."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return (sides > least).all(-1) if least >= 0 else torch.ones_like(sides[..., 0]).bool()
