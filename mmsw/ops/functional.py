"""Entry points of the shift-wise operator (arXiv 2401.12736, section 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import library
from .backends import choose_backend, needs_plain_operators, torch_backend
from .backends.backend import Outputs
from .backends.call import Call
from .pattern import ShiftPattern
from .pattern_tables import PatternTables, conv_margin

_DTYPES = torch.float32, torch.float64, torch.float16, torch.bfloat16


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
    tables = _tables(pattern)
    _check_tensor('conv_out', conv_out, tables)
    channels, border = tables.shift_hv.shape[0], 2 * conv_margin(tables.small_kernel)
    if conv_out.ndim != 4 or conv_out.shape[1] != channels or min(conv_out.shape[2:]) <= border:
        raise ValueError(
            f'conv_out must be [B, {channels}, H + {border}, W + {border}] with H, W >= 1 for '
            f'{pattern}, got {tuple(conv_out.shape)}'
        )
    check_dtype('conv_out', conv_out)
    name = backend_for(backend, 'shift_add', conv_out, tables)
    if name == 'torch' and needs_plain_operators(backend):
        return torch_backend.trace_shift_add(conv_out, tables)
    return library.run(name, 'shift_add', conv_out, *tables)


def shift_wise_conv2d(
    x: Tensor,
    weight: Tensor,
    pattern: ShiftPattern,
    backend: str | None = None,
    mask: Tensor | None = None,
) -> Outputs:
    """Shift-wise convolution: small depthwise convolutions, shifted and added (both steps).

    Equals ``shift_add(F.conv2d(x, weight, padding=N - 1, groups=C), pattern)`` without ever holding
    the ``nk``-fold intermediate. Differentiable to any order in ``x`` and ``weight``. Inside
    ``torch.autocast`` both are cast to the autocast dtype, as for ``F.conv2d``.

    While PyTorch compiles, the ``torch`` backend is traced as plain ATen operators and the others
    are one operator each. Exported and traced programs hold plain operators whatever backend is
    named, so they do not need mmsw.

    Args:
        x: ``[B, C, H, W]``, any memory layout; ``B = 0`` is allowed. Maps hold float64, float32,
            float16 or bfloat16.
        weight: Small kernels ``[C * nk, 1, N, N]`` of the same dtype.
        pattern: Shifts of ``C`` channels.
        backend: A name of :func:`~mmsw.ops.available_backends`; ``None`` or ``'auto'`` chooses.
        mask: Which small kernels get a gradient, boolean ``[C * nk]`` or ``[C * nk, 1, 1, 1]``.
            The gradient of the others is exactly zero and costs nothing where a backend can leave
            it out. The outputs are the same as without a mask.

    Returns:
        Horizontal, vertical and identity output, each ``[B, C, H, W]``, contiguous.

    Raises:
        TypeError: If an argument is of the wrong type or the dtypes differ.
        ValueError: If sizes or devices do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    tables = _tables(pattern)
    _check_tensor('x', x, tables)
    _check_tensor('weight', weight, tables)
    side, filters = tables.small_kernel, tables.shift_hv.shape[0]
    channels = tables.identity_index.shape[0]
    if weight.shape != (filters, 1, side, side):
        expected = [filters, 1, side, side]
        raise ValueError(f'weight must be {expected} for {pattern}, got {list(weight.shape)}')
    shape = x.shape
    if len(shape) != 4 or shape[1] != channels or shape[2] < 1 or shape[3] < 1:
        raise ValueError(
            f'x must be [B, {channels}, H, W] with H, W >= 1 for {pattern}, got {list(shape)}'
        )
    if mask is not None:
        mask = _flat_mask(mask, filters, tables)
    x, weight = autocast_tensors(x, weight)
    if x.dtype != weight.dtype:
        raise TypeError(f'x and weight must have one dtype, got {x.dtype} and {weight.dtype}')
    check_dtype('x', x)
    name = backend_for(backend, 'shift_wise_conv2d', x, tables)
    if is_plain(name):
        return torch_backend.trace_shift_wise_conv2d(x, weight, tables, mask)
    return library.run(name, 'shift_wise_conv2d', x, weight, mask, *tables)


def cross_conv2d(
    x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """Depthwise convolution with a cross-shaped kernel, the folded form of a shift-wise layer.

    Meant for inference; differentiable at least once on every backend.

    Args:
        x: ``[B, C, H, W]``.
        wide: Horizontal arm ``[C, taps, N]``, stored transposed; ``taps`` and ``N`` odd.
        tall: Vertical arm ``[C, taps, N]``.
        bias: ``[C]`` or ``None``.
        backend: A name of :func:`~mmsw.ops.available_backends`; ``None`` or ``'auto'`` chooses.

    Returns:
        ``[B, C, H, W]``, contiguous.

    Raises:
        TypeError: If the dtypes differ or are none that maps may hold.
        ValueError: If sizes or devices do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    for name, tensor in (('wide', wide), ('tall', tall), ('bias', bias)):
        if tensor is not None and tensor.device != x.device:
            raise ValueError(
                f'{name} is on {tensor.device}, the map on {x.device}; move one of them with .to()'
            )
    x, wide, tall = autocast_tensors(x, wide, tall)
    check_dtype('x', x)
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
    if bias is not None:
        if bias.shape != x.shape[1:2]:
            raise ValueError(f'bias must be [{x.shape[1]}], got {list(bias.shape)}')
        bias = bias.to(x.dtype)
    taps = max(wide.shape[1], tall.shape[1])
    call = Call('cross_conv2d', x.device, x.dtype, taps, wide.shape[2])
    name = choose_backend(backend, call)
    if is_plain(name):
        return torch_backend.cross_conv2d(x, wide, tall, bias)
    return library.run(name, 'cross_conv2d', x, wide, tall, bias)


def _tables(pattern: ShiftPattern) -> PatternTables:
    """The tables of a pattern, also of one whose class was there before its module ran again."""
    tables = getattr(pattern, 'tables', None)
    if tables is None:
        raise TypeError(f'pattern must be a ShiftPattern, got {type(pattern).__name__}')
    return tables()


def _check_tensor(name: str, tensor: Tensor, tables: PatternTables) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f'{name} must be a Tensor, got {type(tensor).__name__}')
    if not tensor.is_floating_point():
        raise TypeError(f'{name} must be a floating-point tensor, got {tensor.dtype}')
    if tensor.device != tables.shift_hv.device:
        raise ValueError(
            f'{name} is on {tensor.device}, the pattern on {tables.shift_hv.device}; '
            'move one of them with .to()'
        )


def check_dtype(name: str, tensor: Tensor) -> None:
    """Refuse what no backend takes, by name; raises ``TypeError``."""
    if tensor.dtype not in _DTYPES:
        raise TypeError(
            f'{name} must hold float32, float64, float16 or bfloat16, got {tensor.dtype}'
        )


def _flat_mask(mask: Tensor, filters: int, tables: PatternTables) -> Tensor:
    """A mask of small kernels as ``[C * nk]``."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f'mask must be a boolean tensor, got {found}')
    if mask.shape != (filters,) and mask.shape != (filters, 1, 1, 1):
        raise ValueError(
            f'mask must be [{filters}] or [{filters}, 1, 1, 1], one value per small kernel, got '
            f'{list(mask.shape)}'
        )
    if mask.device != tables.shift_hv.device:
        raise ValueError(
            f'mask is on {mask.device}, the pattern on {tables.shift_hv.device}; '
            'move one of them with .to()'
        )
    return mask.reshape(-1)


def backend_for(backend: str | None, function: str, tensor: Tensor, tables: PatternTables) -> str:
    """Name of the backend that runs a function with a pattern.

    Args:
        backend: A backend argument, see :func:`~mmsw.ops.backends.choose_backend`, also for errors.
        function: ``'shift_add'`` or ``'shift_wise_conv2d'``.
        tensor: What it is to run on; only device and dtype count.
        tables: The pattern.
    """
    sizes = tables.big_kernel, tables.small_kernel, tables.identity_index.shape[1]
    return choose_backend(backend, Call(function, tensor.device, tensor.dtype, *sizes))


def is_plain(name: str) -> bool:
    """Whether ``torch`` is to be plain operators, as compilers and exporters like them, not one."""
    return name == 'torch' and (torch.compiler.is_compiling() or needs_plain_operators(name))


def autocast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype of autocast, where it is on; it leaves float64 alone."""
    device_type = tensors[0].device.type
    if device_type == 'meta' or not torch.is_autocast_enabled(device_type):
        return tensors  # 'meta' has no autocast
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)
