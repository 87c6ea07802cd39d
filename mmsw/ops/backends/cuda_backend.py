"""The CUDA backend: hand-written kernels for float32, float16, bfloat16 and float64.

Sums are kept in float32 (float64 for float64). No kernel uses atomics: the same call gives the same
bits every time. The kernels lie in ``mmsw/ops/csrc/cuda``; ``setup.py`` builds them into
``mmsw/ops/_cuda_torch*`` where nvcc and a CUDA build of torch are present.
"""

from __future__ import annotations

import torch

from .. import compiled
from ..pattern_tables import num_groups
from . import cuda_depthwise
from .call import Call
from .compiled_backend import CompiledOperators, load

# The kernels were seen on one kind of GPU alone: the first use on a device compares them.
NEEDS_CHECK = True

# The largest side of a small kernel whose slot fits into a block's shared memory for any map, and
# the most pairs of repetition and group whose lists do (csrc/cuda/assemble.cuh).
_MOST_SIDE = {torch.float64: 35}
_MOST_SIDE_ELSE = 59
_MOST_SLOTS = 1962
# The most blocks of a depthwise kernel whose marks do (csrc/cuda/strips.cuh).
_MOST_BLOCKS = 11776


def _load() -> str | None:
    if torch.version.cuda is None:
        return (
            f'torch {torch.__version__} is built without CUDA; install a CUDA build of torch and '
            f'build the library: with nvcc on PATH {compiled.REBUILD}'
        )
    reason = load('cuda')
    return None if reason is None else f'{reason}; nvcc has to be on PATH'


# Here and not at the first call, which a compiler may be tracing; a library starts no CUDA context.
_reason = _load()

_operators = CompiledOperators('cuda')
shift_add = _operators.shift_add
shift_add_grad = _operators.shift_add_grad
shift_wise_conv2d = _operators.shift_wise_conv2d
shift_wise_conv2d_grad_input = _operators.shift_wise_conv2d_grad_input
shift_wise_conv2d_grad_weight = _operators.shift_wise_conv2d_grad_weight
cross_conv2d = _operators.cross_conv2d

if _reason is None and cuda_depthwise.is_built():
    depthwise_conv2d = cuda_depthwise.depthwise_conv2d
    depthwise_conv2d_grad_input = cuda_depthwise.depthwise_conv2d_grad_input
    depthwise_conv2d_grad_weight = cuda_depthwise.depthwise_conv2d_grad_weight


def unavailable_reason() -> str | None:
    """Why this backend cannot run here, or ``None``: no CUDA build, no GPU, or no library."""
    if torch.version.cuda is not None and not torch.cuda.is_available():
        return 'torch finds no CUDA GPU (torch.cuda.is_available() is False)'
    return _reason


def refuses(call: Call) -> str | None:
    """What the kernels were not compiled for, or what does not fit into a block's memory."""
    if call.device.type != 'cuda':
        return f'it takes tensors on cuda, not on {call.device.type}'
    if call.function == 'depthwise_conv2d':
        return _refuses_depthwise(call)
    slots = call.num_reps * num_groups(call.big_kernel, call.small_kernel)
    if slots > _MOST_SLOTS:
        return f'num_reps * num_groups is {slots}; it may be up to {_MOST_SLOTS}'
    most = _MOST_SIDE.get(call.dtype, _MOST_SIDE_ELSE)
    if call.function != 'shift_add' and call.small_kernel > most:
        return (
            f'small_kernel is {call.small_kernel}, and shared memory holds {most} of {call.dtype}'
        )
    return None


def _refuses_depthwise(call: Call) -> str | None:
    """Blocks are at most as large as the kernel, and its short side may be as long as the other."""
    most = _MOST_SIDE.get(call.dtype, _MOST_SIDE_ELSE)
    side = min(call.small_kernel, call.big_kernel)
    if side > most:
        return f'small_kernel is {side}, and shared memory holds {most} of {call.dtype}'
    if num_groups(call.big_kernel, side) ** 2 > _MOST_BLOCKS:
        return f'a kernel of {call.big_kernel} may have more than {_MOST_BLOCKS} blocks of {side}'
    return None
