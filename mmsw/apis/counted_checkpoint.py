"""Filling a model that is only counted: from a file of all of it, or of its backbone alone."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmsw.checkpoint import check_masks_placed, load_pretrained, read_checkpoint
from mmsw.checkpoint.folded import folded_layers, is_folded
from mmsw.checkpoint.pruned import plain_weights
from mmsw.checkpoint.release import tensors_of
from mmsw.checkpoint.trained import REVISE_KEYS, check_complete, take_form
from mmsw.deploy import take_folded_form
from mmsw.errors import UsageError
from mmsw.sparsity import attach_saved_masks

_BACKBONE = 'backbone.'


def fill_counted(model: nn.Module, filename: str, deploy: bool) -> frozenset[str]:
    """Load a checkpoint into a model for what is pruned in it.

    Zeros and masks become masks of their layers, whatever the network.

    Args:
        model: The model of a config; changed in place.
        filename: File that a training saved, of the whole model or of any backbone alone.
        deploy: Whether the folded form is to be counted.

    Returns:
        Names of the weights that came from the file.

    Raises:
        UsageError: If the file is folded and ``deploy`` is not asked for.
        mmsw.checkpoint.CheckpointError: If it is damaged or does not fit.
    """
    contents = read_checkpoint(filename)
    tensors = tensors_of(contents, filename)
    state = {_revised(key): tensor for key, tensor in tensors.items()}
    if is_folded(state) and not deploy and not folded_layers(model):
        raise UsageError(
            f'{filename} was saved after switch_to_deploy: count its folded form with --deploy '
            '(deploy=True)'
        )
    backbone = getattr(model, 'backbone', None)
    whole = any(key.startswith(_BACKBONE) for key in state)
    if hasattr(backbone, 'switch_to_deploy') and not whole:
        load_pretrained(backbone, filename)
        return frozenset(_BACKBONE + key for key in backbone.state_dict())
    state = plain_weights(state, filename)
    if backbone is not None and not whole:
        state = {_BACKBONE + key: tensor for key, tensor in state.items()}
    found = frozenset(state)
    state = OrderedDict(_with_the_heads(state, model))
    state._metadata = _metadata(contents)
    take_form(model, state, filename)
    take_folded_form(model, state)
    _add_masks_of_zeros(state, model, found)
    check_complete(state, model, filename)
    check_masks_placed(state, model, filename, trains=False)
    model.load_state_dict(state, strict=False)
    return found


def _revised(key: str) -> str:
    for pattern, replacement in REVISE_KEYS:
        key = re.sub(pattern, replacement, key)
    return key


def _metadata(contents: Any) -> Any:
    """Versions of the layers, by which some of them convert what they load."""
    state = contents.get('state_dict', contents) if isinstance(contents, Mapping) else contents
    return getattr(state, '_metadata', OrderedDict())


def _with_the_heads(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict, with the model's own heads if it fills its whole backbone and nothing else."""
    own = dict(model.named_parameters())
    inside = [name for name in own if name.startswith(_BACKBONE)]
    outside = own.keys() - set(inside)
    if not inside or any(name in state for name in outside) or not all(n in state for n in inside):
        return dict(state)
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith(_BACKBONE)}
    return {**state, **kept}


def _add_masks_of_zeros(state: dict[str, Tensor], model: nn.Module, found: frozenset[str]) -> None:
    """Masks for layers of ordinary kinds whose weights have zeros and no mask in the file."""
    new = {}
    for name, module in model.named_modules():
        key, mask = f'{name}.weight', f'{name}.mask'
        ordinary = isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
        if ordinary and key in found and mask not in state and not hasattr(module, 'mask'):
            kept = state[key] != 0
            if kept.shape == module.weight.shape and not bool(kept.all()):
                new |= {key: state[key], mask: kept}
    attach_saved_masks(model, new)
    state.update(new)
