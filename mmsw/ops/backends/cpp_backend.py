"""The CPU backend in C++ (``mmsw/ops/csrc/cpu``): fused, register-tiled, blind to pruned filters.

The map stays in the cache while a plane's three outputs are computed; arms are assembled per
channel and only their blocks that are not all zero are visited. So a pruned small kernel costs
nothing, and an infinite or NaN value of the map does not reach an output through it.

float32 and float64 run as they are; half precision is converted, computed in float32 and rounded
once. Work is shared out by planes, so results do not depend on the number of threads. Without a
mask, gradients are computed for dense weights, whatever is pruned.

Long arms in float32 run with fewer multiplications (``csrc/cpu/reduced.h``) where that is faster.
The largest error is then about 1e-6 of the largest output, where it is 4e-7 directly. The variable
``MMSW_CPP_ARITHMETIC=direct`` keeps the direct form.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from . import cpp_depthwise
from .call import Call
from .compiled_backend import CompiledOperators, load

NEEDS_CHECK = False

_reason = load('cpp')  # here and not at the first call, which a compiler may be tracing

_operators = CompiledOperators('cpp')
shift_add = _operators.shift_add
shift_add_grad = _operators.shift_add_grad
shift_wise_conv2d = _operators.shift_wise_conv2d
shift_wise_conv2d_grad_input = _operators.shift_wise_conv2d_grad_input
shift_wise_conv2d_grad_weight = _operators.shift_wise_conv2d_grad_weight
cross_conv2d = _operators.cross_conv2d

if hasattr(torch.ops.mmsw_cpp, 'gelu_grad_'):  # a library that was built before lacks them

    def bias_gelu(hidden: Tensor, bias: Tensor, keep: bool = False) -> tuple[Tensor, Tensor]:
        """See :class:`~mmsw.ops.backends.backend.Backend`, here and below."""
        hidden, bias = hidden.contiguous(), bias.contiguous()
        if keep:
            return torch.ops.mmsw_cpp.bias_gelu(hidden, bias)
        return hidden, torch.ops.mmsw_cpp.bias_gelu_(hidden, bias)

    def gelu_grad(
        grad: Tensor, hidden: Tensor, bias: Tensor, factor: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The pass back."""
        grad = grad.contiguous()
        rest = (tensor.contiguous() for tensor in (hidden, bias, factor))
        return grad, torch.ops.mmsw_cpp.gelu_grad_(grad, *rest)


if cpp_depthwise.is_built():
    depthwise_conv2d = cpp_depthwise.depthwise_conv2d
    depthwise_conv2d_grad_input = cpp_depthwise.depthwise_conv2d_grad_input
    depthwise_conv2d_grad_weight = cpp_depthwise.depthwise_conv2d_grad_weight

if hasattr(torch.ops.mmsw_cpp, 'channel_norm'):  # likewise

    def channel_norm(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, keep: bool = True
    ) -> Tensor:
        """Layer norm over the channels."""
        if keep:
            return channel_norm_statistics(x, weight, bias, eps)[0]
        x = x.contiguous()
        torch.ops.mmsw_cpp.channel_norm_(x, _contiguous(weight), _contiguous(bias), eps)
        return x

    def channel_norm_statistics(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same with means and reciprocal deviations."""
        x, weight, bias = _side_by_side(x), _contiguous(weight), _contiguous(bias)
        return torch.ops.mmsw_cpp.channel_norm(x, weight, bias, eps)

    def channel_norm_grad(
        grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pass back."""
        grad, x = _side_by_side(grad), _side_by_side(x)
        return torch.ops.mmsw_cpp.channel_norm_grad(grad, x, _contiguous(weight), mean, rstd)


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _side_by_side(x: Tensor) -> Tensor:
    """A map whose positions are neighbours in memory."""
    return x if x.shape[2] < 2 or x.stride(2) == 1 else x.contiguous()


if hasattr(torch.ops.mmsw_cpp, 'row_moments'):

    def row_moments(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See :class:`~mmsw.ops.backends.backend.Backend`, here and below."""
        return torch.ops.mmsw_cpp.row_moments([*map(_side_by_side, maps)])

    def row_products(grad: Tensor, maps: Sequence[Tensor], mean: Tensor) -> Tensor:
        """Sums of products with a gradient."""
        maps = [*map(_side_by_side, maps)]
        return torch.ops.mmsw_cpp.row_products(_side_by_side(grad), maps, mean)

    def row_sums(
        maps: Sequence[Tensor], mean: Tensor, factors: Tensor, channels: Sequence[int]
    ) -> list[Tensor]:
        """Maps that are sums of maps."""
        maps = [*map(_side_by_side, maps)]
        return torch.ops.mmsw_cpp.row_sums(maps, mean, factors, channels)


ARITHMETIC = 'MMSW_CPP_ARITHMETIC'


def read_arithmetic() -> None:
    """Follow the environment; a value that is unknown is named in a warning."""
    name = os.environ.get(ARITHMETIC)
    if name and not torch.ops.mmsw_cpp.set_arithmetic(name):
        warnings.warn(
            f"{ARITHMETIC}={name!r} is unknown; choose 'reduced' or 'direct'. mmsw uses "
            f'{torch.ops.mmsw_cpp.arithmetic()!r}',
            stacklevel=2,
        )


if _reason is None:
    read_arithmetic()


def unavailable_reason() -> str | None:
    """``None`` where the compiled library is there and fits this torch."""
    return _reason


def refuses(call: Call) -> str | None:
    """It takes every call on the CPU."""
    if call.device.type != 'cpu':
        return f'it takes tensors on cpu, not on {call.device.type}'
    return None


def instruction_set() -> str:
    """Instructions in use: ``'avx512'``, ``'avx2'`` or ``'baseline'`` (SSE2, NEON)."""
    return torch.ops.mmsw_cpp.instruction_set()


def arithmetic() -> str:
    """How float32 arms are run: ``'reduced'``, ``'direct'`` or ``'always'``."""
    return torch.ops.mmsw_cpp.arithmetic()


def set_arithmetic(name: str) -> None:
    """Choose the arithmetic for the whole process, for tests and measurements.

    Args:
        name: ``'reduced'`` takes fewer multiplications where that is faster. ``'direct'`` never
            does. ``'always'`` does so wherever it can, faster or not.

    Raises:
        ValueError: If there is no such arithmetic.
    """
    if not torch.ops.mmsw_cpp.set_arithmetic(name):
        raise ValueError(f"arithmetic {name!r} is unknown; choose 'reduced', 'direct' or 'always'")


def set_instruction_set(name: str) -> None:
    """Choose the instructions for the whole process, for tests and measurements.

    Args:
        name: A name that :func:`instruction_set` can return, or ``'best'``.

    Raises:
        ValueError: If this machine or this build does not have them.
    """
    if not torch.ops.mmsw_cpp.set_instruction_set(name):
        raise ValueError(f'instruction set {name!r} is unknown or not supported by this machine')
