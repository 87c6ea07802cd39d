"""Masks for layers that own none: any convolution or linear layer, chosen by parameter name."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle, unserializable_hook

from mmsw.errors import SparsityError
from mmsw.wording import listed

from .layer_masks import masked_layers, saved_masks

_WEIGHT = '.weight'


class MaskGate:
    """Keeps the gradient of a layer's weight at zero where the mask of the layer prunes.

    It stands as a hook on the weight. The weight of a copy, or of a layer that comes out of a
    pickle, gets the hook of its own gate there and then. A weight that was replaced has none: a
    hook before the layer's forward pass gives it one. Compiled code leaves that out, so a network
    whose weights were replaced should run once before it is compiled.

    Attributes:
        layer: The layer.
        observers: Called with the gradient as it was before; they are not copied or pickled.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.observers: OrderedDict[int, Callable[[Tensor], None]] = OrderedDict()

    def __getstate__(self) -> dict:
        # A copied layer is still empty when its gate is filled; the copied weight is there.
        return {'layer': self.layer, 'weight': self.layer._parameters.get('weight')}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state['layer'])
        self.hook(state.get('weight'))

    def __call__(self, layer: nn.Module, args: tuple) -> None:
        if not torch.compiler.is_compiling():
            self.install()

    def observe(self, observe: Callable[[Tensor], None]) -> RemovableHandle:
        """See :func:`mmsw.sparsity.masked_layers`."""
        handle = RemovableHandle(self.observers)
        self.observers[handle.id] = observe
        return handle

    def install(self) -> None:
        """Hook the layer's weight if it is trained and not hooked yet."""
        weight = self.layer.weight
        if weight.requires_grad and self.gated not in (weight._backward_hooks or {}).values():
            weight.register_hook(self.gated)

    def hook(self, weight: nn.Parameter | None) -> None:
        """Hook a new weight of the layer, also a frozen one: it may be trained later."""
        if weight is None or not weight.is_floating_point() or weight.is_inference():
            return
        trained = weight.requires_grad
        weight.requires_grad_(True).register_hook(self.gated)  # torch refuses it on frozen ones
        weight.requires_grad_(trained)

    @unserializable_hook
    @torch._disable_dynamo  # would compile it per layer; torch.compiler.disable imports so much
    def gated(self, grad: Tensor) -> Tensor:
        """The gradient, exactly zero where the weight is pruned, whatever it was there."""
        for observe in self.observers.values():
            observe(grad)
        return torch.where(self.layer.mask, grad, 0.0)


def attach_masks(net: nn.Module, pattern: str) -> list[str]:
    """Give the layers whose ``weight`` has a matching name a mask, as shift-wise layers have one.

    The mask is a buffer ``mask`` beside the weight: it moves and is saved with the layer. The
    weight stays an ordinary parameter; pruned entries are zero and get a gradient of exactly zero,
    so they stay zero. Copies of the network, pickled ones and those in other processes have masks
    of their own that work alike. Calling it again for the same layers changes nothing.

    Args:
        net: A network; changed in place. Do it before the optimizer's first step and before a
            checkpoint with such masks is loaded.
        pattern: Regular expression that a parameter's name contains a match of.

    Returns:
        Names of all masked layers of the network that the pattern chooses.

    Raises:
        SparsityError: If the pattern is no regular expression, matches no parameter, or matches one
            that cannot be pruned: no ``weight`` of at least two dimensions, or one that several
            layers share.
    """
    matches = compiled_scope(pattern).search
    parameters = dict(net.named_parameters(remove_duplicate=False))
    names = [name for name in parameters if matches(name)]
    if not names:
        raise SparsityError(
            f'scope {pattern!r} matches no parameter; there are {listed(parameters)}'
        )
    shared = [name for name in names if sum(p is parameters[name] for p in parameters.values()) > 1]
    unfit = [name for name in names if not name.endswith(_WEIGHT) or parameters[name].ndim < 2]
    if shared or unfit:
        raise SparsityError(
            f'scope {pattern!r} matches parameters that cannot be pruned: '
            f'{listed(shared or unfit)}; only weights of at least two dimensions that belong to '
            'one layer can, narrow it down'
        )
    masked = {name for name, _ in masked_layers(net)}
    layers = [name.removesuffix(_WEIGHT) for name in names]
    taken = [n for n in layers if n not in masked and hasattr(net.get_submodule(n), 'mask')]
    if taken:
        raise SparsityError(f'these layers have something else called mask: {listed(taken)}')
    for name in layers:
        if name not in masked:
            attach_mask(net.get_submodule(name))
    return layers


def compiled_scope(pattern: str) -> re.Pattern:
    """A scope as a regular expression; raises ``SparsityError`` if it is none."""
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise SparsityError(
            f'scope must be a regular expression, got {pattern!r}: {error}'
        ) from error


def layers_in_scope(net: nn.Module, scope: str | None) -> dict[str, nn.Module]:
    """Layers by name that :func:`attach_masks` chooses; ``None``: those that bring their mask."""
    if scope is None:
        return {name: la for name, la in masked_layers(net) if not hasattr(la, 'mask_gate')}
    return {name: net.get_submodule(name) for name in attach_masks(net, scope)}


def mask_of_zeros(layer: nn.Module) -> Tensor:
    """Where the weight is not zero, for a layer that got its mask here and no values since; the
    mask of any other one."""
    if hasattr(layer, 'mask_gate') and bool(layer.mask.all()):
        return layer.weight != 0
    return layer.mask


def attach_saved_masks(net: nn.Module, state: Mapping[str, Tensor], prefix: str = '') -> list[str]:
    """Give the layers a mask for which a state dict brings one, as :func:`attach_masks` does.

    A checkpoint of a network whose ordinary layers were pruned has masks that a fresh network has
    no place for. Loading it would leave them out, and the next training would lose every zero.
    Call this first, then ``load_state_dict``, which brings the values.

    Args:
        net: A network; changed in place.
        state: State dict. An ``X.mask`` beside ``X.weight`` counts.
            ``load_state_dict`` needs :func:`mmsw.sparsity.layer_masks.normalised_masks` before.
        prefix: Of the state dict's keys that belong to the network, ``'backbone.'`` for instance.

    Returns:
        Names of the layers that got a mask: those that have a weight of this shape, of at least two
        dimensions, and nothing called ``mask`` yet.

    Raises:
        SparsityError: If something called ``X.mask`` beside ``X.weight`` is no mask of it.
    """
    layers = dict(net.named_modules())
    names = []
    for name, weight, _ in saved_masks(state, prefix):
        layer = layers.get(name)
        own = getattr(layer, 'weight', None)
        if not isinstance(own, Tensor) or own.shape != weight.shape or own.ndim < 2:
            continue
        if not hasattr(layer, 'mask'):
            attach_mask(layer)
            names.append(name)
    return names


def attach_mask(layer: nn.Module) -> None:
    """Give a layer with a ``weight`` a mask that prunes nothing yet; one that it has stays."""
    if hasattr(layer, 'mask'):
        return
    layer.register_buffer('mask', torch.ones_like(layer.weight, dtype=torch.bool))
    layer.mask_gate = MaskGate(layer)
    layer.observe_gradients = layer.mask_gate.observe
    layer.mask_gate.hook(layer._parameters.get('weight'))
    layer.register_forward_pre_hook(layer.mask_gate)
