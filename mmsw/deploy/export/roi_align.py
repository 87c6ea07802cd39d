"""RoIAlign over the levels of a pyramid, as an operator for each level and in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class RoIAlignSettings(NamedTuple):
    """How RoIAlign reads maps.

    Attributes:
        size: ``(height, width)`` of what is cut out, in bins.
        strides: Pixels from one position to the next, of each level's map.
        sampling_ratio: Samples of a bin in each direction; 0 for one for each position of the map
            that a bin is long, rounded up.
        aligned: Whether positions are the centres of pixels, and boxes may be of any small size.
    """

    size: tuple[int, int]
    strides: tuple[int, ...]
    sampling_ratio: int
    aligned: bool


@torch.library.custom_op('mmsw_deploy::roi_align', mutates_args=())
def roi_align(
    features: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """What ``mmcv.ops.roi_align`` cuts out of one map by its rule of averages.

    Args:
        features: ``[1, C, H, W]``.
        boxes: ``[N, 4]`` x1 y1 x2 y2 in pixels of the image.
        height: Bins of a box, from top to bottom.
        width: Bins of a box, from left to right.
        scale: Positions of the map in a pixel of the image.
        sampling_ratio: As of :class:`RoIAlignSettings`.
        aligned: As of :class:`RoIAlignSettings`.

    Returns:
        ``[N, C, height, width]``.
    """
    settings = RoIAlignSettings((height, width), (1 / scale,), sampling_ratio, aligned)
    levels = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return plain_pyramid_align([features], boxes, levels, settings)


OPERATOR = torch.ops.mmsw_deploy.roi_align.default


@roi_align.register_fake
def _(
    features: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return features.new_empty(boxes.shape[0], features.shape[1], height, width)


def pyramid_align(
    features: Sequence[Tensor], boxes: Tensor, levels: Tensor, settings: RoIAlignSettings
) -> Tensor:
    """Cut each box out of the map of its level, by :func:`roi_align` for each level.

    Args:
        features: ``[1, C, H, W]`` of each level.
        boxes: ``[N, 4]`` x1 y1 x2 y2 in pixels of the image.
        levels: ``[N]`` int64, the index of each box's map.
        settings: How.

    Returns:
        ``[N, C, height, width]``.
    """
    rule = (*settings.size, settings.sampling_ratio, settings.aligned)
    height, width, ratio, aligned = rule
    parts, places = [], []
    for level, (map_, stride) in enumerate(zip(features, settings.strides, strict=True)):
        (here,) = torch.where(levels == level)
        parts.append(
            roi_align(map_, boxes.index_select(0, here), height, width, 1 / stride, ratio, aligned)
        )
        places.append(here)
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts).index_select(0, torch.cat(places).argsort())


def plain_pyramid_align(
    features: Sequence[Tensor], boxes: Tensor, levels: Tensor, settings: RoIAlignSettings
) -> Tensor:
    """:func:`pyramid_align` of PyTorch's operators alone, which ``torch.export`` can follow.

    All maps become one table with a row for each position. A bin is then a weighted sum of rows:
    four for each of its samples.
    """
    rows, columns = settings.size
    strides, sizes, starts = _layout(features, settings.strides, boxes)
    scale = (1 / strides)[levels].unsqueeze(-1)
    corner, opposite = (boxes * scale - (0.5 if settings.aligned else 0.0)).split(2, -1)
    extent = opposite - corner
    if not settings.aligned:
        extent = extent.clamp(min=1)
    bins = extent / extent.new_tensor([columns, rows])
    ratio = settings.sampling_ratio
    grid = torch.full_like(bins, ratio) if ratio > 0 else bins.ceil().clamp(min=0)
    grid = grid.to(torch.int64)
    samples = grid.prod(-1)

    # One entry for each sample: its box, its bin, and its place in the bin.
    counts = samples.repeat_interleave(rows * columns)
    ends = counts.cumsum(0)
    bag = torch.repeat_interleave(counts)
    within = torch.arange(bag.shape[0], device=bag.device) - (ends - counts)[bag]
    box, cell = bag // (rows * columns), bag % (rows * columns)
    across = grid[box, 0].clamp(min=1)  # is so already; compilers compute beyond the last one
    step = torch.stack([within % across, within // across], -1)
    place = torch.stack([cell % columns, cell // columns], -1)
    bin_ = bins[box]
    point = corner[box] + place * bin_ + (step + 0.5) * bin_ / grid[box]

    low, high, upper = _neighbours(point, sizes[levels][box])
    inside = ((point >= -1) & (point <= sizes[levels][box])).all(-1)
    share = inside / samples[box]
    x, y = torch.stack([low, high], -1).unbind(-2)
    weight_x, weight_y = torch.stack([1 - upper, upper], -1).unbind(-2)
    line = sizes[levels][box, 0]
    index = starts[levels][box].view(-1, 1, 1) + y.unsqueeze(-1) * line.view(-1, 1, 1)
    index = index + x.unsqueeze(-2)
    weight = share.view(-1, 1, 1) * weight_y.unsqueeze(-1) * weight_x.unsqueeze(-2)
    table = torch.cat([map_[0].flatten(1).T for map_ in features])
    found = F.embedding_bag(
        index.flatten(),
        table,
        4 * (ends - counts),
        mode='sum',
        per_sample_weights=weight.flatten().to(table.dtype),
    )
    found = found.view(-1, rows, columns, table.shape[1]).permute(0, 3, 1, 2)
    return found.contiguous()  # AOTInductor takes later maps for ones of this order


def _layout(
    features: Sequence[Tensor], strides: Sequence[int], boxes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each level: its stride, its width and height, and its first row in the table of all."""
    numbers = []
    for map_ in features:
        height, width = map_.shape[-2:]
        numbers.append(
            torch.stack([torch.scalar_tensor(side, dtype=torch.int64) for side in (width, height)])
        )
    sizes = torch.stack(numbers).to(boxes.device)
    areas = sizes.prod(-1)
    return boxes.new_tensor(strides), sizes, areas.cumsum(0) - areas


def _neighbours(point: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions before and behind points, on the map, and the share of the one behind."""
    point = point.clamp(min=0)
    low = torch.minimum(point.to(torch.int64), size - 1)
    return low, torch.minimum(low + 1, size - 1), point - low
