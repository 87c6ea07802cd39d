"""A large depthwise convolution that is computed from small convolutions and shifts."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmsw.ops import depthwise_conv2d
from mmsw.ops.backends import check_backend
from mmsw.ops.decomposition import checked_side, same_padding
from mmsw.whole_number import whole_number, whole_numbers


class ShiftWiseLargeKernel(nn.Conv2d):
    """Depthwise convolution of any kernel size, "same" padding, as small convolutions and shifts.

    It computes what ``nn.Conv2d(C, C, kernel_size, padding='same', groups=C)`` does, up to rounding
    (:func:`mmsw.ops.depthwise_conv2d`), and is such a convolution in everything else: parameters,
    state dict, initialisation, masks and hooks. So a checkpoint of the one loads into the other.
    A map of any memory layout is taken; the output is contiguous.

    :func:`mmsw.models.convert_large_kernels` turns the convolutions of a network into such layers.
    In configs, ``conv_cfg=dict(type='ShiftWiseLargeKernel')`` has mmcv's ``build_conv_layer`` build
    one where a depthwise convolution is asked for.

    Args:
        channels: Channels C of the map.
        kernel_size: ``(M1, M2)``, or one number for both.
        small_kernel: Side N of the small kernels; odd.
        bias: Whether to add a bias.
        backend: Operator backend, see :func:`mmsw.ops.available_backends`.

    Raises:
        ValueError: If a size is not positive, N is even, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """

    small_kernel: int = 5
    backend: str | None = 'auto'

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        small_kernel: int = 5,
        bias: bool = True,
        backend: str | None = 'auto',
    ) -> None:
        channels = whole_number(channels, 'channels', positive=True)
        sides = kernel_sides(kernel_size)
        check_backend(backend)
        small_kernel = checked_side(small_kernel)
        odd = all(side % 2 for side in sides)
        padding = tuple(side // 2 for side in sides) if odd else 'same'
        super().__init__(channels, channels, sides, padding=padding, groups=channels, bias=bias)
        self.small_kernel, self.backend = small_kernel, backend

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``[B, C, H, W]`` or ``[C, H, W]`` to the same shape."""
        maps = x.unsqueeze(0) if x.ndim == 3 else x
        out = depthwise_conv2d(maps, weight, bias, self.small_kernel, self.backend)
        return out.squeeze(0) if x.ndim == 3 else out

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, small_kernel={self.small_kernel}, backend={self.backend!r}'


@MODELS.register_module(name='ShiftWiseLargeKernel', force=True)
def build_as_convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 'same',
    dilation: int | tuple[int, int] = 1,
    groups: int | None = None,
    bias: bool = True,
    **options: Any,
) -> ShiftWiseLargeKernel:
    """A layer from the arguments that mmcv's ``build_conv_layer`` passes.

    Args:
        in_channels: Channels C.
        out_channels: The same number.
        kernel_size: Of :class:`ShiftWiseLargeKernel`, as are ``bias`` and the options.
        stride: 1.
        padding: ``'same'``, or half of an odd kernel size.
        dilation: 1.
        groups: C.
        bias: Whether to add a bias.
        options: ``small_kernel`` and ``backend``.

    Raises:
        ValueError: If it is no depthwise convolution that keeps the size of the map.
    """
    wanted = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_sides(kernel_size),
        stride,
        padding,
        dilation,
        in_channels if groups is None else groups,
        device='meta',
    )
    reason = why_not_shift_wise(wanted)
    if reason is not None:
        raise ValueError(f'ShiftWiseLargeKernel cannot be {wanted}: {reason}')
    return ShiftWiseLargeKernel(in_channels, wanted.kernel_size, bias=bias, **options)


def why_not_shift_wise(conv: nn.Conv2d) -> str | None:
    """Why :class:`ShiftWiseLargeKernel` does not compute what a convolution does, or ``None``."""
    if not conv.in_channels == conv.out_channels == conv.groups:
        return f'not depthwise ({conv.in_channels} -> {conv.out_channels}, groups={conv.groups})'
    for name, value in (('stride', conv.stride), ('dilation', conv.dilation)):
        if value != (1, 1):
            return f'{name} {_plainly(value)}'
    if conv.padding_mode != 'zeros':
        return f'padding mode {conv.padding_mode!r}'
    same = tuple(same_padding(side) for side in conv.kernel_size)
    symmetric = all(before == after for before, after in same)
    if conv.padding == 'same' or (symmetric and conv.padding == tuple(s[0] for s in same)):
        return None
    return f'padding {_plainly(conv.padding)} is not "same"'


def _plainly(value: str | tuple[int, int]) -> str:
    if isinstance(value, tuple) and len(set(value)) == 1:
        return str(value[0])
    return repr(value)


def kernel_sides(kernel_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a kernel; raises ``ValueError`` unless both are positive integers."""
    sides = whole_numbers(kernel_size, 'kernel_size')
    height, width = sides * 2 if len(sides) == 1 else sides if len(sides) == 2 else (0, 0)
    if height < 1 or width < 1:
        raise ValueError(f'kernel_size must be one or two positive integers, got {kernel_size!r}')
    return height, width
