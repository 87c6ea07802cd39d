"""Depthwise convolutions with large kernels on the kernels of the Taichi backend.

A kernel is cut along its short side into strips of N. Each strip is an arm of N x N blocks that
lies aside of the middle; the arms are added in one output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decomposition import same_padding
from .taichi_blocks import Arm, PaddedMap, correlate_all, correlate_grad, work
from .taichi_runtime import running_kernels


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, small_kernel: int) -> Tensor:
    """See :class:`~mmsw.ops.backends.backend.Backend`, here and below."""
    return _added(x, _arms(work(weight), small_kernel), bias)


def depthwise_conv2d_grad_input(grad: Tensor, weight: Tensor, small_kernel: int) -> Tensor:
    """The turned arms over the gradient."""
    return _added(grad, [arm.flipped for arm in _arms(work(weight), small_kernel)], None)


def depthwise_conv2d_grad_weight(
    grad: Tensor, x: Tensor, kernel_size: tuple[int, int], small_kernel: int
) -> Tensor:
    """The gradients of the arms, put together."""
    shape = x.shape[1], 1, *kernel_size
    if not x.numel():
        return x.new_zeros(shape)
    source, grad = work(x), work(grad)
    arms = _arms(source.new_ones(()).expand(shape), small_kernel)
    near = [arm for arm in arms if _meets(arm, x)]
    with running_kernels(x) as kernels:
        padded = PaddedMap.around(source, near)
        found = {arm.aside: correlate_grad(kernels, arm, padded, grad) for arm in near}
    strips = [found.get(arm.aside, arm.blocks.new_zeros(arm.blocks.shape)) for arm in arms]
    return _kernel(strips, arms[0].wide, kernel_size).to(x.dtype)


def _added(x: Tensor, arms: list[Arm], bias: Tensor | None) -> Tensor:
    return correlate_all(x, [arm for arm in arms if _meets(arm, x)], bias)


def _arms(weight: Tensor, side: int) -> list[Arm]:
    """Strips of a kernel ``[C, 1, M1, M2]``, whose long side is that of the arms."""
    channels, _, height, width = weight.shape
    side = min(side, max(height, width) | 1)  # a block around the whole kernel is large enough
    wide = width > height
    down, across = -(-height // side), -(-width // side)
    whole = F.pad(weight, (0, across * side - width, 0, down * side - height))
    blocks = whole.reshape(channels, down, side, across, side).transpose(2, 3)
    along, beside = (width, height) if wide else (height, width)
    first, begin = -same_padding(along)[0], -same_padding(beside)[0] + side // 2
    strips = (blocks if wide else blocks.transpose(1, 2)).unbind(1)
    return [Arm(strip, first, wide, begin + i * side) for i, strip in enumerate(strips)]


def _kernel(strips: list[Tensor], wide: bool, kernel_size: tuple[int, int]) -> Tensor:
    """The kernel that :func:`_arms` cuts into the blocks of these strips."""
    height, width = kernel_size
    joined = []
    for blocks in strips:
        channels, slots, side, _ = blocks.shape
        if wide:
            joined.append(blocks.transpose(1, 2).reshape(channels, side, slots * side))
        else:
            joined.append(blocks.reshape(channels, slots * side, side))
    whole = torch.cat(joined, dim=1 if wide else 2)
    return whole[:, None, :height, :width].contiguous()


def _meets(arm: Arm, x: Tensor) -> bool:
    """Whether any of its taps reaches a position of the map, across the arm."""
    length, half = x.shape[2 if arm.wide else 3], arm.blocks.shape[2] // 2
    return abs(arm.aside) - half < length
