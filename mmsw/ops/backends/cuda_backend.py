"""The CUDA backend: hand-written kernels for float32, float16, bfloat16 and float64.

Sums are kept in float32 (float64 for float64). No kernel uses atomics: the same call gives the same
bits every time. The kernels lie in ``mmsw/ops/csrc/cuda``; ``setup.py`` builds them into
``mmsw.ops._cuda`` where nvcc and a CUDA build of torch are present.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

Outputs = tuple[Tensor, Tensor, Tensor]

DEVICES = ('cuda',)

_EXTENSION = 'mmsw.ops._cuda'
_BUILD = 'with nvcc on PATH run `pip install --no-build-isolation -e .` in the source tree of mmsw'

# Written by the first question; the answer holds for the life of the process.
_reason: str | None = None
_asked = False


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


def shift_add(
    conv_out: Tensor, shift_hv: Tensor, identity_index: Tensor, big_kernel: int, small_kernel: int
) -> Outputs:
    """Shift and add: every output gathers what it is the sum of."""
    return _load().shift_add(conv_out, shift_hv, identity_index, big_kernel, small_kernel)


def shift_add_grad(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Tensor:
    """Gradient of :func:`shift_add` with respect to ``conv_out``."""
    return _load().shift_add_grad(
        grad_h, grad_v, grad_i, shift_hv, identity_index, big_kernel, small_kernel
    )


def shift_wise_conv2d(
    x: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Outputs:
    """Both steps through the cross kernels; slots that hold only zeros are skipped."""
    return _load().shift_wise_conv2d(x, weight, shift_hv, identity_index, big_kernel, small_kernel)


def shift_wise_conv2d_grad_input(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Tensor:
    """Gradient with respect to ``x``; slots that hold only zeros are skipped."""
    return _load().shift_wise_conv2d_grad_input(
        grad_h, grad_v, grad_i, weight, shift_hv, identity_index, big_kernel, small_kernel
    )


def shift_wise_conv2d_grad_weight(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    x: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Tensor:
    """Gradient with respect to the small kernels, summed in a fixed order."""
    return _load().shift_wise_conv2d_grad_weight(
        grad_h, grad_v, grad_i, x, shift_hv, identity_index, big_kernel, small_kernel
    )


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
        return f'the extension {_EXTENSION} is not built: {_BUILD}'
    except ImportError as error:
        return (
            f'the extension {_EXTENSION} cannot be loaded ({error}); it may belong to another '
            f'torch, build it again: {_BUILD}'
        )
    return None


def _load() -> ModuleType:
    import mmsw.ops._cuda as extension  # looked up in sys.modules from the second call on

    return extension
