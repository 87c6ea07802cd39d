"""Depthwise convolutions with large kernels in plain PyTorch: the reference.

Zeros are laid around the map beforehand. oneDNN, which runs this on the CPU, is then hundreds of
times faster for a large square kernel than where it is to pad by itself, and its weight gradient is
right (torch_backend.py says where it is not).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from ..decomposition import same_padding
from ..pattern_tables import plain_number


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, small_kernel: int) -> Tensor:
    """See :func:`mmsw.ops.depthwise_conv2d`; the kernel is run as one."""
    dtype, bias = x.dtype, None if bias is None else _compute_dtype(bias)
    x, weight = _compute_dtype(x), _compute_dtype(weight)
    return trace_depthwise_conv2d(x, weight, bias).to(dtype)


def depthwise_conv2d_grad_input(grad: Tensor, weight: Tensor, small_kernel: int) -> Tensor:
    """Gradient with respect to ``x``: the turned kernel, whose padding is turned as well."""
    dtype = grad.dtype
    grad, weight = _compute_dtype(grad), _compute_dtype(weight)
    height, width = weight.shape[2:]
    padded = F.pad(grad, (*same_padding(width)[::-1], *same_padding(height)[::-1]))
    out = F.conv2d(padded, weight.flip(2, 3), groups=weight.shape[0])
    return out.to(dtype).contiguous()


def depthwise_conv2d_grad_weight(
    grad: Tensor, x: Tensor, kernel_size: tuple[int, int], small_kernel: int
) -> Tensor:
    """Gradient with respect to the kernel, ``[C, 1, M1, M2]``."""
    dtype, channels = x.dtype, x.shape[1]
    if not x.shape[0]:
        return x.new_zeros(channels, 1, *kernel_size)
    grad, x = _compute_dtype(grad), _compute_dtype(x)
    shape = channels, 1, *kernel_size
    return conv2d_weight(_padded(x, *kernel_size), shape, grad, groups=channels).to(dtype)


def trace_depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The output in two differentiable ATen operators, for compilers and exporters as well."""
    channels, _, height, width = map(plain_number, weight.shape)
    kernel = weight.reshape(channels, 1, height, width)  # ONNX wants to know the sizes
    padded = _padded(x, height, width)
    return F.conv2d(padded, kernel, bias, groups=channels).contiguous()


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    return F.pad(x, (*same_padding(width), *same_padding(height)))


def _compute_dtype(tensor: Tensor) -> Tensor:
    """Half types on the CPU are computed in float32 and rounded once."""
    is_half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if is_half and tensor.device.type == 'cpu' else tensor
