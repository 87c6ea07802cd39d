"""The CPU backend in C++ (``mmsw/ops/csrc/cpu``): fused, register-tiled, blind to pruned filters.

The map stays in the cache while a plane's three outputs are computed; arms are assembled per
channel and only their blocks that are not all zero are visited. So a pruned small kernel costs
nothing, and an infinite or NaN value of the map does not reach an output through it.

float32 and float64 run as they are; half precision is converted, computed in float32 and rounded
once. Work is shared out by planes, so results do not depend on the number of threads. Gradients are
computed for dense weights, whatever is pruned: they are exact for every small kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import compiled
from ..assemble import mask_filters
from ..pattern_tables import PatternTables
from .backend import Outputs
from .call import Call

NEEDS_CHECK = False


def _load() -> str | None:
    """Load the library of this torch; returns why that is not possible, or ``None``."""
    path = compiled.library_path(torch.__version__)
    if not path.exists():
        return compiled.missing_reason('cpp', torch.__version__)
    try:
        torch.ops.load_library(str(path))
        found = torch.ops.mmsw_cpp.compiled_for_torch()
    except (OSError, AttributeError, RuntimeError) as error:
        return f'{path.name} cannot be loaded ({error}); {compiled.REBUILD}'
    if compiled.release(found) != compiled.release(torch.__version__):  # a file that was renamed
        return (
            f'{path.name} was compiled for torch {found}, this is torch {torch.__version__}; '
            f'{compiled.REBUILD}'
        )
    return None


_reason = _load()  # here and not at the first call, which a compiler may be tracing


def unavailable_reason() -> str | None:
    """``None`` where the compiled library is there and fits this torch."""
    return _reason


def refuses(call: Call) -> str | None:
    """It takes every floating dtype and every size, on the CPU."""
    if call.device.type != 'cpu':
        return f'it takes tensors on cpu, not on {call.device.type}'
    return None


def shift_add(conv_out: Tensor, pattern: PatternTables) -> Outputs:
    """See :func:`mmsw.ops.shift_add`."""
    outputs = _library().shift_add(_ready(conv_out), *pattern)
    return tuple(out.to(conv_out.dtype) for out in outputs)


def shift_add_grad(grads: Outputs, pattern: PatternTables) -> Tensor:
    """Gradient of :func:`shift_add` with respect to ``conv_out``."""
    grad = _library().shift_add_grad(*map(_ready, grads), *pattern)
    return grad.to(grads[0].dtype)


def shift_wise_conv2d(x: Tensor, weight: Tensor, pattern: PatternTables) -> Outputs:
    """See :func:`mmsw.ops.shift_wise_conv2d`."""
    outputs = _library().shift_wise_conv2d(_ready(x), _ready(weight), *pattern)
    return tuple(out.to(x.dtype) for out in outputs)


def shift_wise_conv2d_grad_input(grads: Outputs, weight: Tensor, pattern: PatternTables) -> Tensor:
    """Gradient of :func:`shift_wise_conv2d` with respect to ``x``."""
    grad = _library().shift_wise_conv2d_grad_input(*map(_ready, (*grads, weight)), *pattern)
    return grad.to(grads[0].dtype)


def shift_wise_conv2d_grad_weight(
    grads: Outputs, x: Tensor, pattern: PatternTables, mask: Tensor | None = None
) -> Tensor:
    """Gradient of :func:`shift_wise_conv2d` with respect to the small kernels."""
    grad = _library().shift_wise_conv2d_grad_weight(*map(_ready, (*grads, x)), *pattern)
    return mask_filters(grad, mask).to(x.dtype)


def cross_conv2d(x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None) -> Tensor:
    """See :func:`mmsw.ops.cross_conv2d`."""
    if bias is None:
        bias = x.new_zeros(x.shape[1])
    tensors = (_ready(tensor) for tensor in (x, wide, tall, bias))  # of one dtype: the caller's
    return _library().cross_conv2d(*tensors).to(x.dtype)


def instruction_set() -> str:
    """Instructions in use: ``'avx512'``, ``'avx2'`` or ``'baseline'`` (SSE2, NEON)."""
    return _library().instruction_set()


def set_instruction_set(name: str) -> None:
    """Choose the instructions for the whole process, for tests and measurements.

    Args:
        name: A name that :func:`instruction_set` can return, or ``'best'``.

    Raises:
        ValueError: If this machine or this build does not have them.
    """
    if not _library().set_instruction_set(name):
        raise ValueError(f'instruction set {name!r} is unknown or not supported by this machine')


def _ready(tensor: Tensor) -> Tensor:
    """Contiguous, in the type that is computed in."""
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.detach().to(dtype).contiguous()


def _library() -> Any:
    return torch.ops.mmsw_cpp
