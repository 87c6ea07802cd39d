"""Entry points of the shift-wise operator (arXiv 2401.12736, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import choose_backend, torch_backend
from .backends.call import Call
from .library import cross_conv2d_op, shift_add_op, shift_wise_conv2d_op
from .pattern import ShiftPattern

Outputs = tuple[Tensor, Tensor, Tensor]


def shift_add(conv_out: Tensor, pattern: ShiftPattern, backend: str | None = None) -> Outputs:
    """Shift the outputs of the small convolutions and add them up (the second step alone).

    With ``e = pattern.margin``, a map of ``H x W`` positions and zero outside ``conv_out``::

        h[b, c, y, x] = sum over r, j of conv_out[b, c*nk + j, y + e, x - shift of (j, r)]

    likewise ``v`` along the rows, and ``i`` without a shift from the groups of the identity.

    Args:
        conv_out: ``[B, C * nk, H + 2e, W + 2e]``: depthwise convolution of the map with the small
            kernels, ``padding = N - 1``.
        pattern: Shifts of ``C`` channels.
        backend: A name of :func:`~mmsw.ops.available_backends`; ``None`` or ``'auto'`` chooses.

    Returns:
        Horizontal, vertical and identity output, each ``[B, C, H, W]``, contiguous.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If sizes or devices do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    _check_tensor('conv_out', conv_out, pattern)
    channels = pattern.channels * pattern.num_groups
    border = 2 * pattern.margin
    if conv_out.ndim != 4 or conv_out.shape[1] != channels or min(conv_out.shape[2:]) <= border:
        raise ValueError(
            f'conv_out must be [B, {channels}, H + {border}, W + {border}] with H, W >= 1 for '
            f'{pattern}, got {tuple(conv_out.shape)}'
        )
    name = _choose(backend, 'shift_add', conv_out, pattern)
    return shift_add_op(conv_out, *_pattern_arguments(pattern), name)


def shift_wise_conv2d(
    x: Tensor, weight: Tensor, pattern: ShiftPattern, backend: str | None = None
) -> Outputs:
    """Shift-wise convolution: small depthwise convolutions, shifted and added (both steps).

    Equals ``shift_add(F.conv2d(x, weight, padding=N - 1, groups=C), pattern)`` without ever holding
    the ``nk``-fold intermediate. Differentiable to any order in ``x`` and ``weight``. Inside
    ``torch.autocast`` both are cast to the autocast dtype, as for ``F.conv2d``.

    While PyTorch compiles, the ``torch`` backend is traced as plain ATen operators and the others
    are one operator each. Exporting takes ``torch`` unless another backend is named, so an exported
    program does not need mmsw.

    Args:
        x: ``[B, C, H, W]``, any memory layout, any floating dtype; ``B = 0`` is allowed.
        weight: Small kernels ``[C * nk, 1, N, N]`` of the same dtype.
        pattern: Shifts of ``C`` channels.
        backend: A name of :func:`~mmsw.ops.available_backends`; ``None`` or ``'auto'`` chooses.

    Returns:
        Horizontal, vertical and identity output, each ``[B, C, H, W]``, contiguous.

    Raises:
        TypeError: If an argument is of the wrong type or the dtypes differ.
        ValueError: If sizes or devices do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    _check_tensor('x', x, pattern)
    _check_tensor('weight', weight, pattern)
    side = pattern.small_kernel
    expected = (pattern.channels * pattern.num_groups, 1, side, side)
    if tuple(weight.shape) != expected:
        raise ValueError(f'weight must be {list(expected)} for {pattern}, got {list(weight.shape)}')
    if x.ndim != 4 or x.shape[1] != pattern.channels or min(x.shape[2:]) < 1:
        raise ValueError(
            f'x must be [B, {pattern.channels}, H, W] with H, W >= 1 for {pattern}, '
            f'got {list(x.shape)}'
        )
    x, weight = _autocast(x), _autocast(weight)
    if x.dtype != weight.dtype:
        raise TypeError(f'x and weight must have one dtype, got {x.dtype} and {weight.dtype}')
    arguments = _pattern_arguments(pattern)
    name = _choose(backend, 'shift_wise_conv2d', x, pattern)
    if name == 'torch' and torch.compiler.is_compiling():
        return torch_backend.trace_shift_wise_conv2d(x, weight, *arguments)
    return shift_wise_conv2d_op(x, weight, *arguments, name)


def cross_conv2d(
    x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """Depthwise convolution with a cross-shaped kernel, the folded form of a shift-wise layer.

    For inference; differentiable once, with the gradients of the ``torch`` backend.

    Args:
        x: ``[B, C, H, W]``.
        wide: Horizontal arm ``[C, taps, N]``, stored transposed; ``taps`` and ``N`` odd.
        tall: Vertical arm ``[C, taps, N]``.
        bias: ``[C]`` or ``None``.
        backend: A name of :func:`~mmsw.ops.available_backends`; ``None`` or ``'auto'`` chooses.

    Returns:
        ``[B, C, H, W]``, contiguous.

    Raises:
        TypeError: If the dtypes differ.
        ValueError: If sizes do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run or has no such form.
    """
    x, wide, tall = _autocast(x), _autocast(wide), _autocast(tall)
    # One by one: with min(), torch 2.4 exports a program for maps of more than C rows only.
    if x.ndim != 4 or any(side < 1 for side in x.shape[1:]):
        raise ValueError(f'x must be [B, C, H, W] with C, H, W >= 1, got {list(x.shape)}')
    for name, arm in (('wide', wide), ('tall', tall)):
        odd = arm.ndim == 3 and arm.shape[1] % 2 == 1 and arm.shape[2] % 2 == 1
        if not odd or arm.shape[0] != x.shape[1] or arm.shape[2] != wide.shape[2]:
            raise ValueError(
                f'{name} must be [{x.shape[1]}, taps, N] with odd taps and N, N the same for both '
                f'arms, got {list(arm.shape)}'
            )
        if arm.dtype != x.dtype:
            raise TypeError(f'x and {name} must have one dtype, got {x.dtype} and {arm.dtype}')
    if bias is None:
        bias = x.new_zeros(x.shape[1])
    elif bias.shape != x.shape[1:2]:
        raise ValueError(f'bias must be [{x.shape[1]}], got {list(bias.shape)}')
    bias = bias.to(x.dtype)
    name = choose_backend(backend, x.device.type, 'cross_conv2d')
    if name == 'torch' and torch.compiler.is_compiling():
        return torch_backend.cross_conv2d(x, wide, tall, bias)
    return cross_conv2d_op(x, wide, tall, bias, name)


def _check_tensor(name: str, tensor: Tensor, pattern: ShiftPattern) -> None:
    if not isinstance(pattern, ShiftPattern):
        raise TypeError(f'pattern must be a ShiftPattern, got {type(pattern).__name__}')
    if not isinstance(tensor, Tensor):
        raise TypeError(f'{name} must be a Tensor, got {type(tensor).__name__}')
    if not tensor.is_floating_point():
        raise TypeError(f'{name} must be a floating-point tensor, got {tensor.dtype}')
    if tensor.device != pattern.shift_hv.device:
        raise ValueError(
            f'{name} is on {tensor.device}, the pattern on {pattern.shift_hv.device}; '
            'move one of them with .to()'
        )


def _choose(backend: str | None, function: str, tensor: Tensor, pattern: ShiftPattern) -> str:
    sizes = pattern.big_kernel, pattern.small_kernel, pattern.num_reps
    call = Call(tensor.device, tensor.dtype, *sizes)
    return choose_backend(backend, tensor.device.type, function, call)


def _pattern_arguments(pattern: ShiftPattern) -> tuple[Tensor, Tensor, int, int]:
    return (*pattern.tables(), pattern.big_kernel, pattern.small_kernel)


def _autocast(tensor: Tensor) -> Tensor:
    device_type = tensor.device.type
    if device_type == 'meta' or tensor.dtype == torch.float64:  # 'meta' has no autocast
        return tensor
    if torch.is_autocast_enabled(device_type):
        return tensor.to(torch.get_autocast_dtype(device_type))
    return tensor
