"""Zeros that a checkpoint brings to a runner's model: they stay, or the run stops and says why."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager

import torch
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from mmsw.checkpoint import check_masks_placed, read_record, settle_zeros, undo_torch_prune
from mmsw.errors import SparsityError
from mmsw.sparsity import (
    attach_saved_masks,
    masked_layers,
    masks,
    masks_from_zeros,
    reset_state,
    set_masks,
)
from mmsw.sparsity.dynamic_state import DYNAMIC_SPARSITY
from mmsw.sparsity.foreign_masks import foreign_masks_aside
from mmsw.wording import listed

from .model_wrapper import unwrapped
from .runner_parts import averaged_models, is_training, optimizers

_WRAPPER = 'module.'
_SOURCE = 'the checkpoint'


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
        CheckpointError: If the file is of a newer format of mmsw, or if the run trains and the file
            has a mask that keeps zeros and no layer can take.
        SparsityError: If the run resumes from weights that were pruned by other means than masks,
            or if the ``X.mask`` of a layer with masks is no mask of its weight. Others that are
            none are left alone.
    """
    read_record(checkpoint, _SOURCE)
    state = checkpoint.get('state_dict', checkpoint)
    net = unwrapped(runner.model)
    states = {_SOURCE: state}
    if 'ema_state_dict' in checkpoint:
        states[f'ema_state_dict of {_SOURCE}'] = checkpoint['ema_state_dict']
    with ExitStack() as stack:
        for source, each in states.items():
            stack.enter_context(_foreign_masks_left_alone(each, net, source))
        _keep_zeros_of(runner, net, checkpoint, states)


def _keep_zeros_of(
    runner: Runner, net: nn.Module, checkpoint: dict, states: Mapping[str, dict[str, Tensor]]
) -> None:
    """As :func:`keep_loaded_zeros`, for state dicts of a checkpoint by their names."""
    state = states[_SOURCE]
    for source, each in states.items():
        _replace(each, undo_torch_prune(each, source))
    _attach(net, state)
    averaged = list(averaged_models(runner))
    for other in averaged:
        attach_saved_masks(other, state, _prefix(state))
    if is_training(runner) and DYNAMIC_SPARSITY not in checkpoint:
        if runner._resume:
            _refuse_zero_filters(net, state)
        else:
            for source, each in states.items():
                settle_zeros(each, checkpoint, source, set(_masks_of(net, each).values()))
    for other in averaged:  # EMAHook may have filled it already
        set_masks(other, {name: state[key] for name, key in _masks_of(other, state).items()})
    if not getattr(runner, 'checks_checkpoints', False):  # after its own changes of the names
        # Left out here and now, so that a second hook has nothing to say about them.
        for key in check_masks_placed(state, net, _SOURCE, is_training(runner), _prefix(state)):
            del state[key]


@contextmanager
def _foreign_masks_left_alone(
    state: MutableMapping[str, Tensor], net: nn.Module, source: str
) -> Iterator[None]:
    with foreign_masks_aside(state, net, _prefix(state)) as problems:
        for problem in problems:
            print_log(
                f'{source}: {problem}. It is no pruning mask, and is left out.',
                logger='current',
                level=30,
            )
        yield


def keep_zeros(
    net: nn.Module, state: MutableMapping[str, Tensor], checkpoint: Mapping, source: str
) -> None:
    """As :func:`keep_loaded_zeros`, for a network, or a part of one, that starts from a file.

    Args:
        net: The network; it gets the masks for layers that have none, but no values yet.
        state: State dict to be loaded into it; changed in place.
        checkpoint: Contents of the file.
        source: Its name, for messages.

    Raises:
        SparsityError: If the ``X.mask`` of a layer with masks is no mask of its weight.
        CheckpointError: If the file has a mask that keeps zeros and no layer can take.
    """
    with _foreign_masks_left_alone(state, net, source):
        _replace(state, undo_torch_prune(state, source))
        _attach(net, state)
        settle_zeros(state, checkpoint, source, set(_masks_of(net, state).values()))
        check_masks_placed(state, net, source, True, _prefix(state))


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


@torch.no_grad()
def close_masks(net: nn.Module, layers: Collection[nn.Module]) -> None:
    """Set weights to zero that a file has other values for although its masks prune them."""
    lost = {
        name: int(torch.count_nonzero(layer.weight[~layer.mask]))
        for name, layer in masked_layers(net)
        if layer in layers
    }
    lost = {name: number for name, number in lost.items() if number}
    if lost:
        print_log(
            f'Sparsity: {sum(lost.values())} weights of {listed(lost)} are not zero although their '
            'masks prune them; they are set to zero.',
            logger='current',
            level=30,
        )
        set_masks(net, {name: net.get_submodule(name).mask for name in lost})


def _attach(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    attached = attach_saved_masks(net, state, _prefix(state))
    if attached:
        print_log(
            f'Sparsity: the checkpoint brings masks of {len(attached)} layers that had none: '
            f'{listed(attached)}.',
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


def _replace(state: MutableMapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """In place: mmengine keeps the versions of the layers as an attribute of the state dict."""
    for key in state.keys() - new.keys():
        del state[key]
    state.update(new)


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
