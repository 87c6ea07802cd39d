"""Networks before they are trained: branches that add almost nothing, norms that do not norm."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_CLOSED = 0.1
_SCALE = re.compile(r'weight|gamma(_?\d)?|ls\d?|.*scale.*')
_NO_SCALES = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)


def closed_scales(net: nn.Module) -> dict[str, nn.Parameter]:
    """Scales per channel that keep residual branches closed, as many networks begin.

    Layer scales that start at 1e-6 (CaiT, ConvNeXt), and the last norm of a ResNet's block that
    starts at zero. With them the whole network is its stem, its downsampling and its shortcuts, and
    so is its receptive field, whatever the kernels in the branches are.

    Args:
        net: Any network.

    Returns:
        Name -> parameter: vectors with the same value in all channels, of magnitude 0.1 or less.
        The gamma of a global response normalisation is none: it has a shortcut of its own.
    """
    return {
        f'{prefix}.{name}' if prefix else name: parameter
        for prefix, module in net.named_modules()
        if not isinstance(module, _NO_SCALES)
        for name, parameter in module.named_parameters(recurse=False)
        if _SCALE.fullmatch(name) and not hasattr(module, 'beta') and _is_closed(parameter)
    }


@torch.no_grad()
def open_scales(net: nn.Module, value: float = 1.0) -> int:
    """Set what :func:`closed_scales` finds, in place.

    Args:
        net: Any network.
        value: What the scales get.

    Returns:
        The number of scales that were set.
    """
    scales = closed_scales(net)
    for parameter in scales.values():
        parameter.fill_(value)
    return len(scales)


@torch.no_grad()
def calibrate_norms(net: nn.Module, images: Iterable[Tensor]) -> int:
    """Give the batch norms of a network the statistics of some images, in place.

    A training begins with the statistics of its batches. In evaluation mode, a network that was not
    trained has a mean of 0 and a variance of 1 instead: its batch norms change nothing, and its
    branches are as weak or as strong as their initial weights make them.

    Args:
        net: Any network; nothing is dropped at random meanwhile, and the modes stay as they were.
        images: Batches ``[B, C, H, W]``, prepared as the network wants them. Each counts the same.

    Returns:
        The number of norms that were set.
    """
    norms = [
        module
        for module in net.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    modes = [(module, module.training) for module in net.modules()]
    momenta = [norm.momentum for norm in norms]
    net.train()
    for module in net.modules():
        if 'drop' in type(module).__name__.lower():
            module.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches
    try:
        for batch in images if norms else ():
            net(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    return len(norms)


def _is_closed(parameter: nn.Parameter) -> bool:
    if not parameter.ndim or not parameter.numel() or parameter.numel() != max(parameter.shape):
        return False
    first = parameter.detach().flatten()[0]
    return bool(abs(first) <= _CLOSED and (parameter == first).all())
