"""Depthwise convolutions with large kernels on the CUDA kernel of the folded layer.

A kernel is cut along its short side into strips of N. Each strip runs as one arm of
``cross_conv2d`` over the map moved aside, and the results are added in float32. The gradient of the
kernel is torch's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decomposition import same_padding
from . import torch_depthwise

Cross = Callable[[Tensor, Tensor, Tensor, None], Tensor]


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, small_kernel: int) -> Tensor:
    """See :class:`~mmsw.ops.backends.backend.Backend`, here and below."""
    starts = tuple(-same_padding(side)[0] for side in weight.shape[2:])
    return strips_added(torch.ops.mmsw_cuda.cross_conv2d, x, weight, bias, starts, small_kernel)


def depthwise_conv2d_grad_input(grad: Tensor, weight: Tensor, small_kernel: int) -> Tensor:
    """The turned kernel over the gradient."""
    starts = tuple(-same_padding(side)[1] for side in weight.shape[2:])
    kernel, run = weight.flip(2, 3), torch.ops.mmsw_cuda.cross_conv2d
    return strips_added(run, grad, kernel, None, starts, small_kernel)


depthwise_conv2d_grad_weight = torch_depthwise.depthwise_conv2d_grad_weight


def strips_added(
    cross: Cross,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    starts: tuple[int, int],
    small_kernel: int,
) -> Tensor:
    """Sum over the strips of a kernel.

    Args:
        cross: ``cross_conv2d`` of a backend: map, wide arm, tall arm, bias.
        x: ``[B, C, H, W]``.
        weight: ``[C, 1, M1, M2]``.
        bias: ``[C]`` or ``None``.
        starts: Row and column of the kernel's first weight; the output is at ``(0, 0)``.
        small_kernel: Side N.
    """
    if not x.numel():
        return x.new_empty(x.shape)
    wide = weight.shape[3] > weight.shape[2]
    kernel, along = weight.squeeze(1), x.shape[3 if wide else 2]
    start, aside = starts
    if wide:
        kernel, start, aside = kernel.mT, aside, start
    arm = _centred(kernel, start, along)
    nothing = arm.new_zeros(arm.shape[0], 1, small_kernel)
    out = x.new_zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32))
    for first in range(0, arm.shape[2], small_kernel):
        strip = arm[:, :, first : first + small_kernel]
        strip = F.pad(strip, (0, small_kernel - strip.shape[2])).contiguous()
        shift, half = aside + first + small_kernel // 2, small_kernel // 2
        if abs(shift) - half >= x.shape[2 if wide else 3]:
            continue  # it only meets padding
        arms = (strip, nothing) if wide else (nothing, strip)
        out += _run_aside(cross, x, arms, shift, half, wide)
    if bias is not None:
        out += bias.to(out.dtype).view(-1, 1, 1)
    return out.to(x.dtype)


def _centred(kernel: Tensor, start: int, length: int) -> Tensor:
    """An arm whose middle tap is the output; taps that a map cannot reach are left out."""
    end = start + kernel.shape[1] - 1
    reach = min(max(-start, end), length - 1)
    return F.pad(kernel, (0, 0, start + reach, reach - end))


def _run_aside(
    cross: Cross, x: Tensor, arms: tuple[Tensor, Tensor], shift: int, half: int, wide: bool
) -> Tensor:
    """Arms whose middle lies ``shift`` columns (of a wide arm: rows) aside."""
    if shift == 0:
        return cross(x, *arms, None)
    pads = half - shift, half + shift  # the strip reads so far beyond the moved map
    moved = F.pad(x, (0, 0, *pads) if wide else pads).contiguous()
    dim = 2 if wide else 3
    return cross(moved, *arms, None).narrow(dim, half, x.shape[dim])
