"""Sizes of the maps inside of a backbone."""

from __future__ import annotations

from collections.abc import Sequence


def map_sizes(version: str, shape: Sequence[int], num_stages: int = 4) -> list[tuple[int, int]]:
    """``(H, W)`` of the maps on which each stage of a :class:`~mmsw.models.ShiftWiseNet` works.

    Strides are 4, 8, 16, and so on. v2 rounds up; v1 rounds down, after padding the image to 32.

    Args:
        version: ``'v1'`` or ``'v2'``.
        shape: ``(H, W)`` of the image.
        num_stages: Stages.

    Raises:
        ValueError: If the shape is not two positive whole numbers.
    """
    shape = tuple(shape)
    if len(shape) != 2 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(f'shape must be (H, W), both positive whole numbers, got {shape}')
    strides = [4 * 2**stage for stage in range(num_stages)]
    if version == 'v1':
        height, width = (max(side, 32) for side in shape)
        return [(height // stride, width // stride) for stride in strides]
    height, width = shape
    return [(-(-height // stride), -(-width // stride)) for stride in strides]
