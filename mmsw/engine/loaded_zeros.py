"""Zeros that a checkpoint brings to a runner's model: they stay, or the run stops and says why."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import torch
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.sparsity import (
    attach_saved_masks,
    from_torch_prune,
    masked_layers,
    masks,
    masks_from_zeros,
    reset_state,
    set_masks,
)
from mmsw.sparsity.dynamic_state import DYNAMIC_SPARSITY
from mmsw.sparsity.layer_masks import normalised_masks
from mmsw.sparsity.torch_prune import without_a_mask

from .model_wrapper import unwrapped
from .runner_parts import averaged_models, is_training, optimizers

_WRAPPER = 'module.'


def keep_loaded_zeros(runner: Runner, checkpoint: dict) -> None:
    """See to it that no zero of a checkpoint is lost; to be called before its weights are loaded.

    - Layers of the model, and of averaged ones, get a mask if the checkpoint brings one for them.
    - What ``torch.nn.utils.prune`` has written becomes weights and masks.
    - Masks that are numbers, or one per filter, become as those of the model.
    - Weights of masked layers that are zero although the masks keep them become pruned, unless the
      run resumes, or dynamic sparse training wrote the file: what has just grown is zero there.

    Calling it again changes nothing.

    Args:
        runner: Its model and hooks are built.
        checkpoint: Contents of the file; changed in place.

    Raises:
        SparsityError: If the run resumes from weights that were pruned by other means than masks,
            or if something called ``X.mask`` beside ``X.weight`` is no mask of it.
    """
    state = checkpoint.get('state_dict', checkpoint)
    net = unwrapped(runner.model)
    states = [state, *(checkpoint[key] for key in ('ema_state_dict',) if key in checkpoint)]
    for each in states:
        _translate(each)
    _attach(net, state)
    averaged = list(averaged_models(runner))
    for other in averaged:
        attach_saved_masks(other, state, _prefix(state))
    if is_training(runner) and DYNAMIC_SPARSITY not in checkpoint:
        if runner._resume:
            _refuse_zero_filters(net, state)
        else:
            _prune_zeros(net, states)
    for other in averaged:  # EMAHook may have filled it already
        set_masks(other, {name: state[key] for name, key in _masks_of(other, state).items()})


def keep_zeros(net: nn.Module, state: MutableMapping[str, Tensor], checkpoint: Mapping) -> None:
    """As :func:`keep_loaded_zeros`, for a network, or a part of one, outside of a run.

    Args:
        net: The network; it gets the masks for layers that have none, but no values yet.
        state: State dict to be loaded into it; changed in place.
        checkpoint: Contents of the file.
    """
    _translate(state)
    _attach(net, state)
    if DYNAMIC_SPARSITY not in checkpoint:
        _prune_zeros(net, [state])


def settle_masks(runner: Runner) -> None:
    """What else must know the masks of the model learns them; to be called before an iteration.

    Averaged models get them: they were copied before the weights were initialised, and a
    pretrained file may have brought masks for layers that had none. The optimizers forget the past
    of pruned weights, which would move them: the masks may be newer than that past.
    """
    net = unwrapped(runner.model)
    for other in averaged_models(runner):
        attach_saved_masks(other, net.state_dict())
        set_masks(other, masks(net))
    for _, layer in masked_layers(net):
        for optimizer in optimizers(runner):
            reset_state(optimizer, layer.weight, ~layer.mask)


def _attach(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    attached = attach_saved_masks(net, state, _prefix(state))
    if attached:
        print_log(
            f'Sparsity: the checkpoint brings masks of {len(attached)} layers that had none: '
            f'{", ".join(attached[:3])}{" ..." if len(attached) > 3 else ""}.',
            logger='current',
        )


def _prefix(state: Mapping[str, Tensor]) -> str:
    """What mmengine takes away from the keys of a state dict."""
    return _WRAPPER if any(key.startswith(_WRAPPER) for key in state) else ''


def _masks_of(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Keys of the masks that a state dict brings for the masked layers of a network, by layer."""
    keys = {name: f'{_prefix(state)}{name}.mask' for name, _ in masked_layers(net)}
    shapes = {name: layer.mask.shape for name, layer in masked_layers(net)}
    return {
        name: key
        for name, key in keys.items()
        if isinstance(state.get(key), Tensor)
        and state[key].dtype == torch.bool
        and state[key].shape == shapes[name]
    }


def _translate(state: MutableMapping[str, Tensor]) -> None:
    lost = without_a_mask(state)
    if lost:
        print_log(
            f'Sparsity: {len(lost)} tensors of the checkpoint were pruned that no mask can keep so '
            f'({", ".join(lost[:3])}); training moves their zeros.',
            logger='current',
            level=30,
        )
    new = from_torch_prune(state)
    if new.keys() != state.keys():
        _replace(state, new)
    state.update(normalised_masks(state))


def _replace(state: MutableMapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """In place: mmengine keeps the versions of the layers as an attribute of the state dict."""
    for key in state.keys() - new.keys():
        del state[key]
    state.update(new)


def _prune_zeros(net: nn.Module, states: list[MutableMapping[str, Tensor]]) -> None:
    for state in states:
        mine = set(_masks_of(net, state).values())
        new = {key: mask for key, mask in masks_from_zeros(state).items() if key in mine}
        number = sum(int((state[key] & ~mask).sum()) for key, mask in new.items())
        state.update(new)
        if new and state is states[0]:
            print_log(
                f'Sparsity: {number} weights of {len(new)} layers are zero in the checkpoint '
                'although its masks keep them; they are pruned from now on.',
                logger='current',
            )


def _refuse_zero_filters(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    mine = _masks_of(net, state)
    new = masks_from_zeros(state)
    filters = {
        name: int((state[key].flatten(1).any(1) & ~new[key].flatten(1).any(1)).sum())
        for name, key in mine.items()
        if key in new
    }
    filters = {name: number for name, number in filters.items() if number}
    if filters:
        raise SparsityError(
            f'cannot resume: {sum(filters.values())} filters of {len(filters)} layers are zero in '
            f'the checkpoint although its masks keep them ({", ".join(list(filters)[:3])}). They '
            'were pruned by other means, and going on would train them again. Start a new run from '
            'these weights (load_from, without --resume): it keeps the zeros'
        )
    number = sum(int((state[key] & ~new[key]).sum()) for key in mine.values() if key in new)
    if number:
        print_log(
            f'Sparsity: {number} single weights of the checkpoint are zero although its masks keep '
            'them; resuming trains them. To keep them at zero, start a new run from these weights '
            '(load_from, without --resume).',
            logger='current',
            level=30,
        )
