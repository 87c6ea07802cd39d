"""State dicts that ``torch.nn.utils.prune`` has written, in this project's terms."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .layer_masks import full_mask

_ORIGINAL = '_orig'
_MASK = '_mask'


def from_torch_prune(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace ``X.weight_orig`` and ``X.weight_mask`` by ``X.weight`` and a boolean ``X.mask``.

    ``torch.nn.utils.prune`` saves a pruned tensor as the two factors that it is the product of. A
    mask ``X.mask`` that is there already prunes as well. Tensors of other names (``bias``) become
    their product; there is no mask for them, see :func:`without_a_mask`.

    Args:
        state: State dict; it is left as it is.

    Returns:
        A new one; equal to the old one if it has no such keys.

    Raises:
        SparsityError: If a mask that is there already does not fit its weight.
    """
    new = dict(state)
    for name in _pruned_tensors(state):
        original, factor = new.pop(name + _ORIGINAL), new.pop(name + _MASK)
        mask = factor.to(original.device) != 0
        new[name] = original.masked_fill(~mask, 0.0)
        if name.rpartition('.')[2] == 'weight':
            key = name.removesuffix('weight') + 'mask'
            if key in new:
                mask = mask & full_mask(new[key], original, key).to(mask.device)
            new[key] = mask
    return new


def without_a_mask(state: Mapping[str, Tensor]) -> list[str]:
    """Tensors, by name, whose zeros :func:`from_torch_prune` finds no mask to keep with."""
    return [
        name
        for name in _pruned_tensors(state)
        if (state[name + _MASK].ndim < 2 or name.rpartition('.')[2] != 'weight')
        and bool((state[name + _MASK] == 0).any())
    ]


def _pruned_tensors(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that a state dict has as two factors."""
    names = [key.removesuffix(_ORIGINAL) for key in state if key.endswith(_ORIGINAL)]
    return [
        name
        for name in names
        if isinstance(mask := state.get(name + _MASK), Tensor)
        and isinstance(original := state[name + _ORIGINAL], Tensor)
        and mask.shape == original.shape
    ]
