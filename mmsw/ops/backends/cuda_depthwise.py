"""Depthwise convolutions with large kernels on a GPU (``mmsw/ops/csrc/cuda/depthwise*``).

A kernel is cut along its short side into strips of N. Every strip is an arm of N x N blocks over
the map moved aside; all strips of a tile are added up in registers and stored once. Blocks of zeros
are left out, as is what only ever meets padding.
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_built() -> bool:
    """Whether the library has them; one that was built before lacks them."""
    return hasattr(torch.ops.mmsw_cuda, 'depthwise_conv2d')


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, small_kernel: int) -> Tensor:
    """See :class:`~mmsw.ops.backends.backend.Backend`, here and below."""
    return torch.ops.mmsw_cuda.depthwise_conv2d(x, weight, bias, small_kernel, False)


def depthwise_conv2d_grad_input(grad: Tensor, weight: Tensor, small_kernel: int) -> Tensor:
    """The turned kernel over the gradient."""
    return torch.ops.mmsw_cuda.depthwise_conv2d(grad, weight, None, small_kernel, True)


def depthwise_conv2d_grad_weight(
    grad: Tensor, x: Tensor, kernel_size: tuple[int, int], small_kernel: int
) -> Tensor:
    """The gradient of the kernel."""
    run = torch.ops.mmsw_cuda.depthwise_conv2d_grad_weight
    return run(grad, x, *kernel_size, small_kernel)
