"""Reading, setting and checking the masks that the layers of a network own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

_MASK = '.mask'
_WEIGHT = '.weight'


def masked_layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module of ``net`` that owns a ``weight`` and a pruning ``mask``, with its name."""
    for name, module in net.named_modules():
        if isinstance(getattr(module, 'mask', None), Tensor) and hasattr(module, 'set_mask'):
            yield name, module


def masks(net: nn.Module) -> dict[str, Tensor]:
    """Copies of the masks of a network by layer name; True = kept."""
    return {name: layer.mask.clone() for name, layer in masked_layers(net)}


def set_masks(net: nn.Module, new: Mapping[str, Tensor]) -> None:
    """Set masks by layer name; pruned weights become zero at once.

    Args:
        net: A network.
        new: Masks of some or all of its layers, see ``MaskedFilters.set_mask``.

    Raises:
        KeyError: If a name is not that of a masked layer; nothing is set then.
    """
    layers = dict(masked_layers(net))
    unknown = sorted(set(new) - set(layers))
    if unknown:
        raise KeyError(f'no masked layers of these names: {unknown}; known are {sorted(layers)}')
    for name, mask in new.items():
        layers[name].set_mask(mask)


def lost_zeros(state: Mapping[str, Tensor], pruned: Mapping[str, Tensor]) -> dict[str, int]:
    """Weights of a state dict that are not zero although they are pruned.

    Args:
        state: State dict; keys may carry a prefix that ``pruned`` lacks (``module.``).
        pruned: By layer name, the mask (True = kept) that must hold.

    Returns:
        Number of such weights by layer name; layers without any are left out. A NaN counts.

    Raises:
        KeyError: If the state dict has no weight of a layer in ``pruned``: nothing can be verified.
    """
    lost = {}
    for name, mask in pruned.items():
        weight = state.get(name + _WEIGHT, state.get(f'module.{name}{_WEIGHT}'))
        if weight is None:
            raise KeyError(f'the state dict has no weight of the masked layer {name!r}')
        count = int(torch.count_nonzero(weight[~mask.to(weight.device)]))
        if count:
            lost[name] = count
    return lost
