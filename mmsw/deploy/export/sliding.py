"""Logits of a large image from a program that takes crops, as mmseg slides a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor


def slide(
    run: Callable[[Tensor], Tensor],
    image: Tensor,
    crop_size: tuple[int, int],
    stride: tuple[int, int],
) -> Tensor:
    """Mean of the logits of all crops that a pixel is in.

    Args:
        run: From ``[B, C, h, w]`` to logits ``[B, K, h, w]``.
        image: ``[B, C, H, W]``. A side that is shorter than the crop is taken whole.
        crop_size: Height and width of a crop.
        stride: From one crop to the next, down and to the right. The last ones end with the image.

    Returns:
        ``[B, K, H, W]``.
    """
    height, width = image.shape[2:]
    total: Tensor | None = None
    count = image.new_zeros(1, 1, height, width)
    for top, bottom in _spans(height, crop_size[0], stride[0]):
        for left, right in _spans(width, crop_size[1], stride[1]):
            logits = run(image[:, :, top:bottom, left:right])
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[:, :, top:bottom, left:right] += logits
            count[:, :, top:bottom, left:right] += 1
    return total / count


def _spans(side: int, crop: int, stride: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each crop along a side."""
    for index in range(max(side - crop + stride - 1, 0) // stride + 1):
        end = min(index * stride + crop, side)
        yield max(end - crop, 0), end
