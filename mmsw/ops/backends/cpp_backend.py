"""The CPU backend in C++ (``mmsw/ops/csrc/cpu``): fused, register-tiled, blind to pruned filters.

The map stays in the cache while a plane's three outputs are computed; arms are assembled per
channel and only their blocks that are not all zero are visited. So a pruned small kernel costs
nothing, and an infinite or NaN value of the map does not reach an output through it.

float32 and float64 run as they are; half precision is converted, computed in float32 and rounded
once. Work is shared out by planes, so results do not depend on the number of threads. Gradients are
computed for dense weights, whatever is pruned: they are exact for every small kernel.

Long arms in float32 run with fewer multiplications (``csrc/cpu/reduced.h``) where that is faster.
The largest error is then about 1e-6 of the largest output, where it is 4e-7 directly. The variable
``MMSW_CPP_ARITHMETIC=direct`` keeps the direct form.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor

from .. import compiled

Outputs = tuple[Tensor, Tensor, Tensor]

DEVICES = ('cpu',)
HAS_CROSS = True
NEEDS_CHECK = False
limit = None  # it takes every size


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
    read_arithmetic()
    return None


_reason = _load()  # here and not at the first call, which a compiler may be tracing


def unavailable_reason() -> str | None:
    """``None`` where the compiled library is there and fits this torch."""
    return _reason


def shift_add(conv_out: Tensor, *tables: Any) -> Outputs:
    """See :func:`mmsw.ops.shift_add`."""
    return _library().shift_add(conv_out, *tables)


def shift_add_grad(grad_h: Tensor, grad_v: Tensor, grad_i: Tensor, *tables: Any) -> Tensor:
    """Gradient of :func:`shift_add` with respect to ``conv_out``."""
    return _library().shift_add_grad(grad_h, grad_v, grad_i, *tables)


def shift_wise_conv2d(x: Tensor, weight: Tensor, *tables: Any) -> Outputs:
    """See :func:`mmsw.ops.shift_wise_conv2d`."""
    return _library().shift_wise_conv2d(x, weight, None, *tables)


def shift_wise_conv2d_grad_input(
    grad_h: Tensor, grad_v: Tensor, grad_i: Tensor, weight: Tensor, *tables: Any
) -> Tensor:
    """Gradient of :func:`shift_wise_conv2d` with respect to ``x``."""
    return _library().shift_wise_conv2d_grad_input(grad_h, grad_v, grad_i, weight, None, *tables)


def shift_wise_conv2d_grad_weight(
    grad_h: Tensor, grad_v: Tensor, grad_i: Tensor, x: Tensor, *tables: Any
) -> Tensor:
    """Gradient of :func:`shift_wise_conv2d` with respect to the small kernels."""
    return _library().shift_wise_conv2d_grad_weight(grad_h, grad_v, grad_i, x, None, *tables)


def cross_conv2d(x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None) -> Tensor:
    """See :func:`mmsw.ops.cross_conv2d`."""
    return _library().cross_conv2d(x, wide, tall, bias)


def instruction_set() -> str:
    """Instructions in use: ``'avx512'``, ``'avx2'`` or ``'baseline'`` (SSE2, NEON)."""
    return _library().instruction_set()


def arithmetic() -> str:
    """How float32 arms are run: ``'reduced'``, ``'direct'`` or ``'always'``."""
    return _library().arithmetic()


def set_arithmetic(name: str) -> None:
    """Choose the arithmetic for the whole process, for tests and measurements.

    Args:
        name: ``'reduced'`` takes fewer multiplications where that is faster. ``'direct'`` never
            does. ``'always'`` does so wherever it can, faster or not.

    Raises:
        ValueError: If there is no such arithmetic.
    """
    if not _library().set_arithmetic(name):
        raise ValueError(f"arithmetic {name!r} is unknown; choose 'reduced', 'direct' or 'always'")


def set_instruction_set(name: str) -> None:
    """Choose the instructions for the whole process, for tests and measurements.

    Args:
        name: A name that :func:`instruction_set` can return, or ``'best'``.

    Raises:
        ValueError: If this machine or this build does not have them.
    """
    if not _library().set_instruction_set(name):
        raise ValueError(f'instruction set {name!r} is unknown or not supported by this machine')


def _library() -> Any:
    return torch.ops.mmsw_cpp
