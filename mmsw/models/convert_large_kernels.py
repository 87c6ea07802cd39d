"""The large depthwise convolutions of any network, turned into small convolutions and shifts."""

from __future__ import annotations

from typing import NamedTuple

from mmcv.cnn.bricks import wrappers
from torch import nn

from mmsw.ops.backends import check_backend
from mmsw.ops.decomposition import checked_side
from mmsw.whole_number import whole_number

from .layers.depthwise_conv import DepthwiseConv2d
from .layers.shiftwise_large_kernel import ShiftWiseLargeKernel, why_not_shift_wise

# What computes as nn.Conv2d does; mmcv's wrapper differs on empty batches of old torch alone.
_PLAIN_CLASSES = nn.Conv2d, wrappers.Conv2d, DepthwiseConv2d
_WHOLE = '(the model itself)'


class LargeKernelReport(NamedTuple):
    """What :func:`convert_large_kernels` did; its text is a table for people.

    Attributes:
        replaced: By name of the layer, its kernel size.
        left: By name of every other convolution with a side of at least ``min_size``, why it stays.
    """

    replaced: dict[str, tuple[int, int]]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f'{len(self.replaced)} large kernels replaced, {len(self.left)} left']
        for name, (height, width) in self.replaced.items():
            lines.append(f'  replaced {name or _WHOLE}: {height} x {width}')
        lines += [f'  left     {name or _WHOLE}: {reason}' for name, reason in self.left.items()]
        return '\n'.join(lines)


def convert_large_kernels(
    model: nn.Module, min_size: int = 9, small_kernel: int = 5, backend: str | None = 'auto'
) -> LargeKernelReport:
    """Have the large depthwise convolutions of a network run as small convolutions and shifts.

    Works in place, on any network of torch. A convolution is replaced if the longer side of its
    kernel is at least ``min_size``, it is depthwise, has stride 1, dilation 1 and zero "same"
    padding. The network computes what it did before, up to rounding.

    The module itself stays and becomes a :class:`ShiftWiseLargeKernel`. So parameters, buffers,
    hooks, masks (of :func:`mmsw.sparsity.attach_masks` and of ``torch.nn.utils.prune``), dtype,
    device, mode, state dict and whoever refers to the module are as before. Optimizers go on.
    Call it before ``torch.compile``, ``torch.jit`` or an export.

    Args:
        model: A network, or one convolution; changed in place.
        min_size: Shortest longer side that is replaced. The default leaves kernels of 7 x 7 alone.
        small_kernel: Side N of the small kernels; odd.
        backend: Operator backend, see :func:`mmsw.ops.available_backends`.

    Returns:
        What was replaced, and what was left and why. Layers that were converted before are in
        neither list. Smaller kernels are not named.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If a size is not positive, N is even, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f'model must be a torch.nn.Module, got {type(model).__name__}')
    min_size = whole_number(min_size, 'min_size', positive=True)
    side = checked_side(small_kernel)
    check_backend(backend)
    replaced: dict[str, tuple[int, int]] = {}
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        if not _is_large(module, min_size):
            continue
        reason = _own_computation(module) or why_not_shift_wise(module)
        if reason is not None:
            left[name] = reason
            continue
        module.__class__ = ShiftWiseLargeKernel  # as torch's lazy modules become what they are
        module.small_kernel, module.backend = side, backend
        replaced[name] = module.kernel_size
    return LargeKernelReport(replaced, left)


def _is_large(module: nn.Module, min_size: int) -> bool:
    """Whether it is a convolution with a large kernel that was not converted before."""
    return (
        isinstance(module, nn.Conv2d)
        and not isinstance(module, ShiftWiseLargeKernel)
        and max(module.kernel_size) >= min_size
    )


def _own_computation(module: nn.Conv2d) -> str | None:
    """Why a module may compute something else than its class does, or ``None``."""
    kind = type(module)
    if hasattr(module, 'parametrizations'):
        return 'parametrized; remove_parametrizations() first'
    if kind not in _PLAIN_CLASSES:
        return f'a class of its own ({kind.__module__}.{kind.__qualname__})'
    if 'forward' in vars(module) or '_conv_forward' in vars(module):
        return 'a forward of its own'
    return None
