"""Masks for layers that own none: any convolution or linear layer, chosen by parameter name."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .masks import checked_mask, masked_layers

_WEIGHT = '.weight'


class MaskGate:
    """Hook on the gradient of a weight: zero where the mask of its layer prunes.

    Attributes:
        observe: Called with the gradient as it was before, if set.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.observe: Callable[[Tensor], None] | None = None

    def __call__(self, grad: Tensor) -> Tensor:
        if self.observe is not None:
            self.observe(grad)
        return torch.where(self.layer.mask, grad, 0.0)


def attach_masks(net: nn.Module, pattern: str) -> list[str]:
    """Give the layers whose ``weight`` has a matching name a mask, as shift-wise layers have one.

    The mask is a buffer ``mask`` beside the weight: it moves and is saved with the layer. The
    weight stays an ordinary parameter; pruned entries are zero and get a gradient of exactly zero,
    so they stay zero. A copy of the layer (an averaged model, for instance) has the mask, but not
    the gate on its gradient. Calling it again for the same layers changes nothing.

    Args:
        net: A network; changed in place. Do it before the optimizer's first step and before a
            checkpoint with such masks is loaded.
        pattern: Regular expression that a parameter's name contains a match of.

    Returns:
        Names of all masked layers of the network that the pattern chooses.

    Raises:
        ValueError: If the pattern is no regular expression, matches no parameter, or matches one
            that cannot be pruned: no ``weight`` of at least two dimensions, or one that several
            layers share.
    """
    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise ValueError(f'scope must be a regular expression, got {pattern!r}: {error}') from error
    parameters = dict(net.named_parameters(remove_duplicate=False))
    names = [name for name in parameters if matches(name)]
    if not names:
        raise ValueError(
            f'scope {pattern!r} matches no parameter; there are, for instance, '
            f'{list(parameters)[:5]}'
        )
    shared = [name for name in names if sum(p is parameters[name] for p in parameters.values()) > 1]
    unfit = [name for name in names if not name.endswith(_WEIGHT) or parameters[name].ndim < 2]
    if shared or unfit:
        raise ValueError(
            f'scope {pattern!r} matches parameters that cannot be pruned: {(shared or unfit)[:5]}; '
            'only weights of at least two dimensions that belong to one layer can, narrow it down'
        )
    masked = {name for name, _ in masked_layers(net)}
    layers = [name.removesuffix(_WEIGHT) for name in names]
    taken = [n for n in layers if n not in masked and hasattr(net.get_submodule(n), 'mask')]
    if taken:
        raise ValueError(f'these layers have something else called mask: {taken}')
    for name in layers:
        if name not in masked:
            _attach(net.get_submodule(name))
    return layers


def attach_saved_masks(net: nn.Module, state: Mapping[str, Tensor], prefix: str = '') -> list[str]:
    """Give layers the masks that a state dict has for them and they do not, before it is loaded.

    Args:
        net: A network; changed in place.
        state: A state dict; its masks are the keys that end in ``.mask``.
        prefix: What precedes the names of the network in its keys.

    Returns:
        Names of the layers that got a mask. Layers that own one, or that the network does not have,
        are left alone.
    """
    layers = dict(net.named_modules())
    attached = []
    for key, mask in state.items():
        if not (key.startswith(prefix) and key.endswith('.mask')):
            continue
        name = key[len(prefix) :].removesuffix('.mask')
        layer = layers.get(name)
        weight = getattr(layer, 'weight', None)
        if weight is None or hasattr(layer, 'mask') or mask.shape != weight.shape:
            continue
        _attach(layer)
        attached.append(name)
    return attached


def _attach(layer: nn.Module) -> None:
    layer.register_buffer('mask', torch.ones_like(layer.weight, dtype=torch.bool))
    layer.set_mask = types.MethodType(_set_mask, layer)
    layer.mask_gate = MaskGate(layer)
    if layer.weight.requires_grad:
        layer.weight.register_hook(layer.mask_gate)


@torch.no_grad()
def _set_mask(layer: nn.Module, mask: Tensor) -> None:
    """As ``MaskedFilters.set_mask``."""
    layer.mask.copy_(checked_mask(mask, layer.weight))
    layer.weight.masked_fill_(~layer.mask, 0.0)
