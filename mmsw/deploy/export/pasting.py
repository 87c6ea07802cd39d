"""Masks of objects in the size of an image, from the small masks of their boxes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Sample the mask of each box at the centres of the pixels of an image, bilinearly.

    Args:
        masks: ``[N, h, w]``, probabilities over the area of a box; outside of it they are 0.
        boxes: ``[N, 4]``, x1, y1, x2, y2 in pixels of the image.
        size: Height and width of the image.
        threshold: Least probability of a pixel that belongs to the object. Below 0, results are
            probabilities in 255ths.

    Returns:
        ``[N, height, width]``, bool, or uint8 for a threshold below 0.
    """
    height, width = size
    pasted = masks.new_zeros(
        len(masks), height, width, dtype=torch.bool if threshold >= 0 else torch.uint8
    )
    for mask, box, whole in zip(masks, boxes, pasted, strict=True):
        left, top = (torch.clamp(box[:2].floor() - 1, min=0)).to(torch.int32).tolist()
        right = int(torch.clamp(box[2].ceil() + 1, max=width))
        bottom = int(torch.clamp(box[3].ceil() + 1, max=height))
        if right <= left or bottom <= top:
            continue
        x = _position(left, right, box[0], box[2])
        y = _position(top, bottom, box[1], box[3])
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2)
        found = F.grid_sample(mask[None, None].float(), grid[None], align_corners=False)[0, 0]
        part = found >= threshold if threshold >= 0 else (found * 255).to(torch.uint8)
        whole[top:bottom, left:right] = part
    return pasted


def _position(begin: int, end: int, first: Tensor, last: Tensor) -> Tensor:
    """Where pixels lie in a box along a side: -1 at its beginning, 1 at its end."""
    centres = torch.arange(begin, end, dtype=torch.float32) + 0.5
    place = (centres - first) / (last - first) * 2 - 1
    return torch.where(torch.isinf(place), 0.0, place)  # of a box without extent
