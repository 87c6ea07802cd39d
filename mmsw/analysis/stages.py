"""Stages of a shift-wise network: the sizes of their maps, and their layers."""

from __future__ import annotations

from collections.abc import Sequence

from mmsw.models import ShiftWiseConv2d, ShiftWiseNet


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


def stage_layers(net: ShiftWiseNet) -> list[list[ShiftWiseConv2d]]:
    """The shift-wise layers of each stage, in the order in which they run.

    Args:
        net: A network in its training form.

    Raises:
        ValueError: If the network is folded: it has no small convolutions any more; or if its
            operator is not the published one, which the closed forms are of.
    """
    blocks = [block for stage in net.stages for block in stage]
    if any(block.deployed or block.shift_wise.deployed for block in blocks):
        raise ValueError(
            'the network is folded, so it has no small convolutions: use its training form'
        )
    changed = [block.shift_wise.variant_options.changed() for block in blocks]
    if any(changed):
        told = ', '.join(f'{name}={value!r}' for name, value in next(filter(None, changed)).items())
        raise ValueError(
            f'the shift-wise layers have {told}, but the counts are of the published operator: '
            'leave these options out'
        )
    return [[block.shift_wise for block in stage] for stage in net.stages]
