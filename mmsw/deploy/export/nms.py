"""Greedy non-maximum suppression in groups, as an operator and in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ABSENT = -1.0  # the score of a row that is none: it is never kept and suppresses nothing


@torch.library.custom_op('mmsw_deploy::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """Which boxes stay when each one suppresses those below it that overlap it.

    Boxes are taken by falling score; of equal ones the earlier comes first. A box is suppressed by
    one that stays, where the intersection over union of the two is above the threshold. This is
    what ``mmcv.ops.nms`` does with ``offset=0``.

    Args:
        boxes: ``[G, N, 4]`` float32, x1 y1 x2 y2; groups know nothing of each other.
        scores: ``[G, N]`` float32; negative where there is no box.
        iou_threshold: Two boxes that overlap by more are one object.
        limit: So many of each group are enough: who comes after them may be kept or not.

    Returns:
        ``[G, N]`` bool.
    """
    return plain_nms(boxes, scores, iou_threshold, limit)


OPERATOR = torch.ops.mmsw_deploy.nms.default


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def plain_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """:func:`nms` of PyTorch's operators alone, which ``torch.export`` can follow.

    Who stays depends only on those with a better score. So from the guess that all stay, one pass
    over the pairs sets the best box right, and each further pass at least the next of a chain of
    overlapping ones, until nothing changes. The number of passes is that of the longest chain.
    """
    scores, order = scores.sort(dim=-1, descending=True, stable=True)
    boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    present = scores >= 0
    above = (_overlaps(boxes) > iou_threshold).triu(1) & present.unsqueeze(-1)

    def passed(kept: Tensor) -> Tensor:
        return present & ~(above & kept.unsqueeze(-1)).any(-2)

    kept = _until_still(passed, present)
    return torch.zeros_like(kept).scatter(1, order, kept)


def _until_still(step: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    """Repeat a step until it changes nothing; a loop of the graph where one is made."""
    if not torch.compiler.is_compiling():
        while not torch.equal(after := step(state), state):
            state = after
        return state

    def is_changing(state: Tensor, changing: Tensor) -> Tensor:
        return changing.clone()  # while_loop refuses what it gave

    def stepped(state: Tensor, changing: Tensor) -> tuple[Tensor, Tensor]:
        after = step(state)
        return after, (after != state).any()

    # Not a constant: an exporter would take the first test out of the loop.
    start = state.any() | True
    return torch.while_loop(is_changing, stepped, (state.clone(), start))[0]


def _overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union ``[G, N, N]`` of each pair; nan for two without an area."""
    corner, opposite = boxes[..., :2], boxes[..., 2:]
    area = (opposite - corner).prod(-1)
    sides = torch.minimum(opposite.unsqueeze(-2), opposite.unsqueeze(-3)) - torch.maximum(
        corner.unsqueeze(-2), corner.unsqueeze(-3)
    )
    width, height = sides.clamp(min=0).unbind(-1)
    shared = width * height
    return shared / (area.unsqueeze(-1) + area.unsqueeze(-2) - shared)
