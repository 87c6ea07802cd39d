"""The CUDA backend: hand-written kernels for float32, float16, bfloat16 and float64.

Sums are kept in float32 (float64 for float64). No kernel uses atomics: the same call gives the same
bits every time. The kernels lie in ``mmsw/ops/csrc/cuda``; ``setup.py`` builds them into
``mmsw.ops._cuda_torch*`` where nvcc and a CUDA build of torch are present.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

from .. import compiled
from ..assemble import mask_filters
from ..pattern_tables import PatternTables, num_groups
from .backend import Outputs
from .call import Call

# No GPU was there when the kernels were written: the first use on a device compares them.
NEEDS_CHECK = True

_EXTENSION = f'mmsw.ops.{compiled.module_name("cuda", torch.__version__)}'
_BUILD = f'with nvcc on PATH {compiled.REBUILD}'
# The largest side of a small kernel whose slot fits into a block's shared memory for any map, and
# the most pairs of repetition and group whose shifts do (csrc/cuda/shift_wise.cuh).
_MOST_SIDE = {torch.float64: 35}
_MOST_SIDE_ELSE = 59
_MOST_SLOTS = 5888

# Written by the first question; the answer holds for the life of the process.
_reason: str | None = None
_asked = False
_extension: ModuleType | None = None


def unavailable_reason() -> str | None:
    """Why this backend cannot run here, or ``None``.

    Asks in this order: is torch built with CUDA, is there a GPU, is the extension built and can it
    be loaded.
    """
    global _reason, _asked
    if not _asked:
        _reason = _find_reason()
        _asked = True
    return _reason


def refuses(call: Call) -> str | None:
    """What the kernels were not compiled for, or what does not fit into a block's memory."""
    if call.device.type != 'cuda':
        return f'it takes tensors on cuda, not on {call.device.type}'
    if call.num_reps * num_groups(call.big_kernel, call.small_kernel) > _MOST_SLOTS:
        return 'num_reps * num_groups is too large for shared memory'
    most = _MOST_SIDE.get(call.dtype, _MOST_SIDE_ELSE)
    if call.function != 'shift_add' and call.small_kernel > most:
        return 'small_kernel is too large for shared memory'
    return None


def shift_add(conv_out: Tensor, pattern: PatternTables) -> Outputs:
    """Shift and add: every output gathers what it is the sum of."""
    return _load().shift_add(conv_out, *pattern)


def shift_add_grad(grads: Outputs, pattern: PatternTables) -> Tensor:
    """Gradient of :func:`shift_add` with respect to ``conv_out``."""
    return _load().shift_add_grad(*grads, *pattern)


def shift_wise_conv2d(x: Tensor, weight: Tensor, pattern: PatternTables) -> Outputs:
    """Both steps through the cross kernels; slots that hold only zeros are skipped."""
    return _load().shift_wise_conv2d(x, weight, *pattern)


def shift_wise_conv2d_grad_input(grads: Outputs, weight: Tensor, pattern: PatternTables) -> Tensor:
    """Gradient with respect to ``x``; slots that hold only zeros are skipped."""
    return _load().shift_wise_conv2d_grad_input(*grads, weight, *pattern)


def shift_wise_conv2d_grad_weight(
    grads: Outputs, x: Tensor, pattern: PatternTables, mask: Tensor | None = None
) -> Tensor:
    """Gradient with respect to the small kernels, summed in a fixed order."""
    return mask_filters(_load().shift_wise_conv2d_grad_weight(*grads, x, *pattern), mask)


def _find_reason() -> str | None:
    if torch.version.cuda is None:
        return (
            f'torch {torch.__version__} is built without CUDA; install a CUDA build of torch and '
            f'build the extension: {_BUILD}'
        )
    if not torch.cuda.is_available():
        return 'torch finds no CUDA GPU (torch.cuda.is_available() is False)'
    try:
        _load()
    except ModuleNotFoundError:
        return f'{compiled.missing_reason("cuda", torch.__version__)}; nvcc has to be on PATH'
    except ImportError as error:
        return (
            f'the extension {_EXTENSION} cannot be loaded ({error}); it may belong to another '
            f'torch, build it again: {_BUILD}'
        )
    return None


def _load() -> ModuleType:
    global _extension
    if _extension is None:
        _extension = importlib.import_module(_EXTENSION)
    return _extension
