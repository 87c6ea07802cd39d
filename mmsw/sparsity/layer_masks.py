"""Reading, setting and checking the masks that the layers of a network own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.wording import listed

from .optimizer_state import reset_state

_WEIGHT = '.weight'
_MASK = '.mask'
_PATH = re.compile(r'\.paths\.\d+$')


def masked_layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module of ``net`` that owns a ``weight`` and a pruning ``mask``, with its name.

    These are layers that bring their mask with them, and those that
    :func:`mmsw.sparsity.attach_masks` gave one. Both have ``observe_gradients(observe)``: it calls
    ``observe`` in every backward pass with the gradient that the weight would have without the
    mask, and returns a handle whose ``remove()`` ends that. Copies of a layer are not observed.
    """
    for name, module in net.named_modules():
        if isinstance(getattr(module, 'mask', None), Tensor) and hasattr(
            module, 'observe_gradients'
        ):
            yield name, module


def masks(net: nn.Module) -> dict[str, Tensor]:
    """Copies of the masks of a network by layer name; True = kept."""
    return {name: layer.mask.clone() for name, layer in masked_layers(net)}


def layer_of(name: str) -> str:
    """Name of the shift-wise layer that a path (``....paths.0``) belongs to; others' own name."""
    return _PATH.sub('', name)


def checked_mask(mask: Tensor, weight: Tensor) -> Tensor:
    """A mask in the shape of the weight ``[F, ...]`` that it is meant for.

    Args:
        mask: Boolean, of the weight's shape or ``[F, 1, ...]`` (whole filters); True = keep.
        weight: The weight.

    Returns:
        The mask, expanded.

    Raises:
        TypeError: If the mask is not boolean.
        ValueError: If it has another shape.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f'mask must be boolean (True = keep), got {mask.dtype}')
    per_filter = (weight.shape[0], *[1] * (weight.ndim - 1))
    if tuple(mask.shape) not in (tuple(weight.shape), per_filter):
        raise ValueError(
            f'mask must be {list(weight.shape)} or {list(per_filter)}, got {list(mask.shape)}'
        )
    return mask.expand(weight.shape)


def set_masks(
    net: nn.Module,
    new: Mapping[str, Tensor],
    optimizers: Iterable[torch.optim.Optimizer] = (),
) -> None:
    """Set masks by layer name; pruned weights become zero at once.

    Momentum and the moments of Adam remember what a weight did before it was pruned, and move it
    off zero again at their next step. Give the optimizers if there are any that have made a step:
    they forget the past of the pruned weights.

    Args:
        net: A network.
        new: Masks of some or all of its layers, see ``MaskedFilters.set_mask``.
        optimizers: That train the network.

    Raises:
        KeyError: If a name is not that of a masked layer.
        TypeError: If a mask is not boolean.
        ValueError: If a mask does not fit its layer. In all three cases nothing is set.
    """
    layers, optimizers = dict(masked_layers(net)), list(optimizers)
    unknown = sorted(set(new) - set(layers))
    if unknown:
        raise KeyError(
            f'no masked layers of these names: {listed(unknown)}; known are '
            f'{listed(sorted(layers))}'
        )
    for name, mask in new.items():
        try:
            checked_mask(mask, layers[name].weight)
        except (TypeError, ValueError) as error:
            raise type(error)(f'{name}: {error}') from error
    for name, mask in new.items():
        layer = layers[name]
        set_mask(layer, mask)
        for optimizer in optimizers:
            reset_state(optimizer, layer.weight, ~layer.mask)


@torch.no_grad()
def set_mask(layer: nn.Module, mask: Tensor) -> None:
    """Set the mask of one layer, see :func:`checked_mask`; pruned weights become zero at once."""
    layer.mask.copy_(checked_mask(mask, layer.weight))
    layer.weight.masked_fill_(~layer.mask, 0.0)


def saved_masks(
    state: Mapping[str, Tensor], prefix: str = ''
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, weight and boolean mask of every layer of a state dict that has both.

    The masks come in the shape of the weight, see :func:`normalised_masks`.

    Args:
        state: State dict.
        prefix: Only keys that begin with it count; names come without it.

    Raises:
        SparsityError: If something called ``X.mask`` beside ``X.weight`` is no mask of it.
    """
    for key, mask in state.items():
        if not (key.startswith(prefix) and key.endswith(_MASK)):
            continue
        name = key.removesuffix(_MASK)
        weight = state.get(name + _WEIGHT)
        if not isinstance(weight, Tensor):
            continue
        if weight.ndim > 1:
            yield name.removeprefix(prefix), weight, full_mask(mask, weight, key)
        elif isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == weight.shape:
            yield name.removeprefix(prefix), weight, mask


def full_mask(mask: Tensor, weight: Tensor, key: str) -> Tensor:
    """A saved mask as boolean and in the shape of its weight; itself if it is so already.

    Args:
        mask: 0 and 1 of any type, of the weight's shape or ``[F, 1, ...]`` (whole filters).
        weight: The weight ``[F, ...]``, of at least two dimensions.
        key: Name of the mask, for the message.

    Returns:
        The mask; True = keep.

    Raises:
        SparsityError: If it has other values or another shape.
    """
    per_filter = [weight.shape[0], *[1] * (weight.ndim - 1)]
    found = f'{mask.dtype} {list(mask.shape)}' if isinstance(mask, Tensor) else type(mask).__name__
    expected = (
        f'expected is a mask of the weight beside it: 0 (pruned) and 1 (kept), '
        f'{list(weight.shape)} or {per_filter}. Save it so, or under another name if it is '
        'something else'
    )
    if not isinstance(mask, Tensor) or list(mask.shape) not in (list(weight.shape), per_filter):
        raise SparsityError(f'{key} is {found}; {expected}')
    if mask.dtype != torch.bool:
        kept = mask == 1
        if not bool((kept | (mask == 0)).all()):
            raise SparsityError(f'{key} ({found}) has other values than 0 and 1; {expected}')
        mask = kept
    return mask if mask.shape == weight.shape else mask.expand(weight.shape).contiguous()


def normalised_masks(state: Mapping[str, Tensor], prefix: str = '') -> dict[str, Tensor]:
    """Masks of a state dict that are not yet as a network has them.

    Other programs save masks as numbers, or one entry per filter. A network that loads them needs
    them boolean and in the shape of the weight: ``state.update(normalised_masks(state))``.

    Args:
        state: State dict; it is left as it is. Whatever is called ``X.mask`` counts where there is
            an ``X.weight`` of at least two dimensions.
        prefix: Only keys that begin with it count.

    Returns:
        By key (``'....mask'``, with the prefix), the masks that change.

    Raises:
        SparsityError: If one has other values than 0 and 1, or another shape than the weight's or
            ``[F, 1, ...]``; the message names it.
    """
    found = {prefix + name + _MASK: mask for name, _, mask in saved_masks(state, prefix)}
    return {key: mask for key, mask in found.items() if mask is not state[key]}


def masks_from_zeros(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks of a state dict that also prune the weights that are exactly zero.

    Weights that were set to zero by hand or by another pruner stand under a mask that keeps them,
    so that training would move them. ``state.update(masks_from_zeros(state))`` keeps them at zero.
    Do not do so with a file that dynamic sparse training has written: filters that have just grown
    are zero there.

    Args:
        state: State dict; it is left as it is.

    Returns:
        By key (``'....mask'``), the masks that change: ``mask & (weight != 0)``.
    """
    return {
        name + _MASK: mask & (weight != 0).to(mask.device)
        for name, weight, mask in saved_masks(state)
        if bool((mask & (weight == 0).to(mask.device)).any())
    }


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
