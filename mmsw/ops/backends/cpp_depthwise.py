"""Depthwise convolutions with large kernels in C++ (``mmsw/ops/csrc/cpu/depthwise*``).

A kernel runs in strips of up to five rows, as wide as it is: per column, the taps of a strip stay
in registers. Columns of zeros in a strip are left out, as is what only ever meets padding. Kernels
with one side of 3 or 5 run in float32 with fewer multiplications where that is faster
(cpp_backend.py says how to turn that off).
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_built() -> bool:
    """Whether the library has them; one that was built before lacks them."""
    return hasattr(torch.ops.mmsw_cpp, 'depthwise')


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, small_kernel: int) -> Tensor:
    """See :class:`~mmsw.ops.backends.backend.Backend`, here and below."""
    return torch.ops.mmsw_cpp.depthwise(x, weight, bias, small_kernel, False)


def depthwise_conv2d_grad_input(grad: Tensor, weight: Tensor, small_kernel: int) -> Tensor:
    """The turned kernel over the gradient."""
    return torch.ops.mmsw_cpp.depthwise(grad, weight, None, small_kernel, True)


def depthwise_conv2d_grad_weight(
    grad: Tensor, x: Tensor, kernel_size: tuple[int, int], small_kernel: int
) -> Tensor:
    """The gradient of the kernel."""
    return torch.ops.mmsw_cpp.depthwise_grad_weight(grad, x, *kernel_size)
