"""The operators of a detector that formats have in different forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .nms import ABSENT, nms, plain_nms
from .roi_align import RoIAlignSettings, plain_pyramid_align, pyramid_align


class Operators(NamedTuple):
    """One form of each.

    Attributes:
        best: Of scores ``[N]``, a number and a floor: that many best scores above the floor, by
            falling score, and their places; negative scores where there are fewer.
        nms: As :func:`mmsw.deploy.export.nms.nms`.
        pyramid_align: As :func:`mmsw.deploy.export.roi_align.pyramid_align`.
    """

    best: Callable[[Tensor, int, float], tuple[Tensor, Tensor]]
    nms: Callable[[Tensor, Tensor, float, int], Tensor]
    pyramid_align: Callable[[Sequence[Tensor], Tensor, Tensor, RoIAlignSettings], Tensor]

    def __deepcopy__(self, memo: dict[int, Any]) -> Operators:
        return self  # functions, and operators of torch, which cannot be copied


def _plain_best(scores: Tensor, count: int, floor: float) -> tuple[Tensor, Tensor]:
    (above,) = torch.where(scores > floor)  # few where many scores are low: sorted faster
    scores = torch.cat([scores[above], scores.new_full((count,), ABSENT)])
    above = torch.cat([above, above.new_zeros(count)])
    scores, order = scores.sort(descending=True, stable=True)
    return scores[:count], above[order[:count]]


def _standard_best(scores: Tensor, count: int, floor: float) -> tuple[Tensor, Tensor]:
    padded = torch.cat([scores, scores.new_full((count,), ABSENT)])
    values, places = padded.topk(count)  # TopK of ONNX takes the earlier of equal scores
    present = values > floor
    zero = torch.zeros_like(places)
    return torch.where(present, values, ABSENT), torch.where(present, places, zero)


PLAIN = Operators(_plain_best, plain_nms, plain_pyramid_align)
STANDARD = Operators(_standard_best, nms, pyramid_align)  # for the standard ONNX domain
