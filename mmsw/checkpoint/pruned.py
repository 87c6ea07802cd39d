"""What is pruned in a file, whoever pruned it: zeros and other tools' masks become masks here."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmsw.errors import CheckpointError, SparsityError
from mmsw.sparsity import from_torch_prune, masks_from_zeros
from mmsw.sparsity.dynamic_state import DYNAMIC_SPARSITY
from mmsw.sparsity.layer_masks import normalised_masks
from mmsw.sparsity.torch_prune import without_a_mask
from mmsw.wording import listed

_MASK = '.mask'
_bare_zeros_are_kept: ContextVar[bool] = ContextVar('bare_zeros_are_kept', default=False)
_PARAMETRIZED = re.compile(r'^(.*)\.parametrizations\.(\w+)\.')


def plain_weights(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Undo what ``torch.nn.utils.prune`` makes of a weight; its mask stays as ``X.mask``.

    Masks ``X.mask`` come out boolean and in the shape of their weight.

    Args:
        tensors: State dict, with ``X.weight_orig`` and ``X.weight_mask`` where a weight is pruned.
        source: Its name, for messages.

    Returns:
        A state dict with ``X.weight`` and ``X.mask`` instead.

    Raises:
        CheckpointError: If a tensor is parametrized, as by the sparsifiers of ``torch.ao.pruning``:
            these save neither the weight itself nor their mask. If something called ``X.mask``
            beside ``X.weight`` is no mask of it.
    """
    matches = {match[1]: match for match in map(_PARAMETRIZED.match, tensors) if match}
    if matches:
        name = next(iter(matches.values()))[2]
        raise CheckpointError(
            f'{source}: the {name} of {listed(list(matches))} is parametrized, so the file does '
            'not hold the values that the network computes with. Make it plain and save the '
            f'network again: torch.nn.utils.parametrize.remove_parametrizations(layer, {name!r}) '
            'for each of these layers, or squash_mask() of the sparsifier from torch.ao.pruning'
        )
    try:
        return undo_torch_prune(tensors, source)
    except SparsityError as error:
        raise CheckpointError(f'{source}: {error}') from error


def undo_torch_prune(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """As :func:`plain_weights`, for a state dict of any network, which may have parametrizations.

    Raises:
        SparsityError: If something called ``X.mask`` beside ``X.weight`` is no mask of it.
    """
    unkept = without_a_mask(tensors)
    if unkept:
        _warn(
            f'{source}: torch.nn.utils.prune also pruned {listed(unkept)}; only weights of at '
            'least two dimensions can have a mask, so training will move these zeros'
        )
    plain = from_torch_prune(tensors)
    return {**plain, **normalised_masks(plain)}


def settle_zeros(
    state: MutableMapping[str, Tensor],
    checkpoint: Any,
    source: str,
    only: Container[str] | None = None,
) -> None:
    """Give masks to weights that are exactly zero although the masks of the file keep them.

    Whoever zeroed them wanted them gone, and training would move them. In the file of a run with
    dynamic sparsity they stay: weights that have just grown are zero there.

    Args:
        state: State dict with a mask beside every small kernel; changed in place.
        checkpoint: What the file holds.
        source: Its name, for messages.
        only: Keys of the masks that count; ``None``: all.
    """
    new = {
        key: mask for key, mask in masks_from_zeros(state).items() if only is None or key in only
    }
    number = sum(int((state[key] & ~mask).sum()) for key, mask in new.items())
    if new and isinstance(checkpoint, Mapping) and DYNAMIC_SPARSITY in checkpoint:
        print_log(
            f'{source}: {number} weights in {len(new)} masks are kept and exactly zero; they stay '
            'as they are, because in a run with dynamic sparsity weights start at zero',
            logger='current',
        )
    elif new:
        _warn(
            f'{source}: {number} weights in {len(new)} masks are exactly zero although the masks '
            'keep them; the zeros count as pruned and stay'
        )
        state.update(new)


def warn_of_empty_masks(state: Mapping[str, Tensor], source: str) -> None:
    """Say so where a mask keeps nothing at all."""
    empty = [
        key.removesuffix(_MASK)
        for key, mask in state.items()
        if key.endswith(_MASK) and mask.numel() and not bool(mask.any())
    ]
    if empty:
        _warn(f'{source}: nothing is left of {listed(empty)}: every weight is pruned')


def check_masks_placed(
    state: Mapping[str, Tensor], net: nn.Module, source: str, trains: bool, prefix: str = ''
) -> list[str]:
    """Say so where a file has masks that a network has no place for.

    To be called once the masks of the file are attached, see
    :func:`mmsw.sparsity.attach_saved_masks`, and before it is loaded.

    Args:
        state: State dict of the file.
        net: The network that it goes into.
        source: Name of the file, for messages.
        trains: Whether the network will be trained.
        prefix: What precedes the names of the network in the state dict.

    Returns:
        Keys of these masks.

    Raises:
        CheckpointError: If the network will be trained, and takes a weight over without the mask
            that keeps its zeros.
    """
    own = net.state_dict()
    names = [
        key.removeprefix(prefix).removesuffix(_MASK)
        for key, mask in state.items()
        if key.endswith(_MASK) and isinstance(mask, Tensor) and key.removeprefix(prefix) not in own
    ]
    lost = []
    for name in names:
        weight, mine = state.get(f'{prefix}{name}.weight'), own.get(f'{name}.weight')
        taken = isinstance(weight, Tensor) and mine is not None and weight.shape == mine.shape
        if taken and not bool((state[f'{prefix}{name}{_MASK}'] != 0).all()):
            lost.append(name)
    if lost and trains:
        raise CheckpointError(
            f'{source} has masks that no layer can take: {listed(lost)}. Training would move what '
            'they prune. A layer takes a mask if its weight has at least two dimensions and '
            'nothing else in it is called mask. Leave these masks out of the file if these weights '
            'need not stay pruned'
        )
    if names:
        _warn(
            f'{source} has masks that find no place in the {type(net).__name__}, and are left out: '
            f'{listed(names)}'
        )
    return [f'{prefix}{name}{_MASK}' for name in names]


@contextmanager
def bare_zeros_are_kept(kept: bool) -> Iterator[None]:
    """Inside, no warning speaks of zeros without a mask, if something keeps them too."""
    token = _bare_zeros_are_kept.set(kept)
    try:
        yield
    finally:
        _bare_zeros_are_kept.reset(token)


def warn_of_bare_zeros(state: Mapping[str, Tensor], source: str) -> None:
    """Say so where ordinary weights have zeros in number and no mask to keep them with."""
    if _bare_zeros_are_kept.get():
        return
    bare, number = [], 0
    for key, weight in state.items():
        name = key.removesuffix('.weight')
        if name == key or weight.ndim < 2 or name + _MASK in state:
            continue
        zeros = weight.numel() - int(torch.count_nonzero(weight))
        if zeros * 100 >= weight.numel() > 0:  # trained weights hardly ever are exactly zero
            bare.append(name)
            number += zeros
    if bare:
        _warn(
            f'{source}: {number} weights of {listed(bare)} are exactly zero and have no mask, so '
            'training will move them, unless the config has '
            "custom_hooks = [dict(type='KeepSparsityHook')]"
        )


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
