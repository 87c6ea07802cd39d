"""Any depthwise convolution, of stride 1 and "same" padding, from small convolutions and shifts."""

from __future__ import annotations

from torch import Tensor

from . import depthwise_library
from .backends import choose_backend
from .backends.call import Call
from .backends.torch_depthwise import trace_depthwise_conv2d
from .decomposition import checked_kernel, checked_side
from .functional import autocast_tensors, check_dtype, is_plain


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    small_kernel: int = 5,
    backend: str | None = None,
) -> Tensor:
    """Depthwise convolution with a kernel of any size, made of small kernels and shifts.

    Equals ``F.conv2d(x, weight, bias, padding='same', groups=C)`` up to rounding. A kernel is cut
    into blocks of at most ``N x N`` weights; each is a small convolution whose output is shifted to
    its place in the kernel and added, without ever holding these outputs
    (:func:`~mmsw.ops.decompose_depthwise` shows the two steps literally; arXiv 2401.12736, section
    "Decomposition"). Blocks of zeros cost nothing on the backends ``cpp`` and ``taichi``.

    Differentiable to any order in ``x``, ``weight`` and ``bias``. Inside ``torch.autocast`` they
    are cast to the autocast dtype, as for ``F.conv2d``. Exported and traced programs hold plain
    operators of torch.

    Args:
        x: ``[B, C, H, W]``, any memory layout; ``B = 0`` is allowed. Maps hold float64, float32,
            float16 or bfloat16.
        weight: ``[C, 1, M1, M2]`` of the same dtype. An even side is padded by one more on the far
            side, as ``padding='same'`` does.
        bias: ``[C]`` or ``None``.
        small_kernel: Side N of the blocks; odd. It decides where the kernel is cut, not what is
            computed.
        backend: A name of :func:`~mmsw.ops.available_backends`; ``None`` or ``'auto'`` chooses.

    Returns:
        ``[B, C, H, W]``, contiguous.

    Raises:
        TypeError: If an argument is of the wrong type or the dtypes differ.
        ValueError: If sizes or devices do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    height, width = checked_kernel(weight)
    side = checked_side(small_kernel)
    _check_map(x, weight)
    x, weight = autocast_tensors(x, weight)
    if x.dtype != weight.dtype:
        raise TypeError(f'x and weight must have one dtype, got {x.dtype} and {weight.dtype}')
    check_dtype('x', x)
    if bias is not None:
        bias = _fitted_bias(bias, x)
    call = Call('depthwise_conv2d', x.device, x.dtype, max(height, width), side)
    name = choose_backend(backend, call)
    if is_plain(name):
        return trace_depthwise_conv2d(x, weight, bias)
    return depthwise_library.run(x, weight, bias, side, name)


def _check_map(x: Tensor, weight: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f'x must be a Tensor, got {type(x).__name__}')
    channels = weight.shape[0]
    # One by one, as in cross_conv2d: exporters take min() for a constraint.
    if x.ndim != 4 or x.shape[1] != channels or x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(
            f'x must be [B, {channels}, H, W] with H, W >= 1 for weight {list(weight.shape)}, got '
            f'{list(x.shape)}'
        )
    if x.device != weight.device:
        raise ValueError(
            f'weight is on {weight.device}, the map on {x.device}; move one of them with .to()'
        )


def _fitted_bias(bias: Tensor, x: Tensor) -> Tensor:
    if not isinstance(bias, Tensor):
        raise TypeError(f'bias must be a Tensor or None, got {type(bias).__name__}')
    if bias.shape != x.shape[1:2]:
        raise ValueError(f'bias must be [{x.shape[1]}], got {list(bias.shape)}')
    if bias.device != x.device:
        raise ValueError(
            f'bias is on {bias.device}, the map on {x.device}; move one of them with .to()'
        )
    return bias.to(x.dtype)
