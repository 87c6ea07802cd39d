"""A checkpoint in any layout as a state dict of this project."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmsw.errors import CheckpointError
from mmsw.wording import listed

from .files import load_checkpoint_file
from .folded import is_folded
from .layouts import LAYOUTS, SHIFT_WISE, Layout, is_merged_slak
from .pruned import plain_weights
from .published import check_generators

StateDict = dict[str, Tensor]

_WRAPPERS = ('model', 'state_dict')
_USUAL_PREFIX = re.compile(r'(?:module\.|_orig_mod\.|backbone\.)*')
_WRAPPED = re.compile(r'^(?:module\.|_orig_mod\.)*')


def load_release_checkpoint(path: str | os.PathLike[str], trust: bool = False) -> StateDict:
    """Read a published checkpoint, or one of this project, as this project's state dict.

    Args:
        path: File as published: bare or under ``model`` / ``state_dict``, with or without
            ``module.`` and ``backbone.`` before the keys, paths apart or merged.
        trust: See :func:`mmsw.checkpoint.load_checkpoint_file`.

    Returns:
        State dict of the backbone, a mask beside every path of a shift-wise network (taken from its
        exact zeros where the file has none) and beside every weight of a SLaK network that has
        zeros; the classifier under ``head.`` (its layer norm under ``head.norm.``).

    Raises:
        CheckpointError: If the file cannot be read or holds neither network.
    """
    return to_state_dict(load_checkpoint_file(path, trust), source=str(path))


def to_state_dict(
    checkpoint: Any,
    source: str = 'checkpoint',
    prefix: str | None = None,
    layout: Layout | None = None,
) -> StateDict:
    """Translate the contents of a checkpoint file, see :func:`load_release_checkpoint`.

    Args:
        checkpoint: What the file holds.
        source: Its name, for messages.
        prefix: What precedes the backbone's names in the file, with or without a dot at the end.
            ``None``: it is looked for; a file with several such networks needs it.
        layout: The kind of network that is wanted; ``None``: any.

    Returns:
        As :func:`load_release_checkpoint`.

    Raises:
        CheckpointError: If there is no such network, or more than one to choose from; or if its
            shift patterns would have to be drawn, and are drawn otherwise than they were.
    """
    tensors = tensors_of(checkpoint, source)
    found, layout = _network_prefix(tensors, source, prefix, layout)
    tensors = {
        key.removeprefix(found): tensor for key, tensor in tensors.items() if key.startswith(found)
    }
    renamed = plain_weights(tensors, source)
    if not layout.kernels(renamed):
        renamed = {layout.renamed(key): tensor for key, tensor in renamed.items()}
        for key, tensor in renamed.items():
            if '.grn.' in key:
                renamed[key] = tensor.flatten()
    _add_masks(renamed, layout)
    if layout is SHIFT_WISE and not any(key.endswith('.pattern.shift_hv') for key in renamed):
        check_generators(source)
    return renamed


def tensors_of(checkpoint: Any, source: str) -> StateDict:
    """The tensors in the contents of a checkpoint file, of whichever network, by their own names.

    Args:
        checkpoint: What the file holds: a state dict, bare or under ``model`` or ``state_dict``.
        source: Its name, for messages.

    Raises:
        CheckpointError: If it holds no tensors, or tensors without values beside others.
    """
    for wrapper in _WRAPPERS:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{source} holds a {type(checkpoint).__name__}, expected a dict of tensors, bare or '
            f'under {" or ".join(_WRAPPERS)}'
        )
    tensors = {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f'{source} holds no tensors; its keys are {sorted(map(str, checkpoint))[:8]}'
        )
    empty = [key for key, tensor in tensors.items() if tensor.is_meta]
    if 0 < len(empty) < len(tensors):  # all of them: somebody asks for names and shapes
        raise CheckpointError(
            f'{source} holds no values of {listed(empty)}: they were saved from the meta device'
        )
    return tensors


def _add_masks(state: StateDict, layout: Layout) -> None:
    """Masks for what the file has none of: for all small kernels, or for whatever has zeros."""
    if layout is SHIFT_WISE:
        for key in layout.kernels(state):
            state.setdefault(key.removesuffix('weight') + 'mask', state[key] != 0)
        return
    for key, weight in list(state.items()):
        mask = key.removesuffix('weight') + 'mask'
        if not key.endswith('.weight') or weight.ndim < 2 or key.startswith('head.'):
            continue
        if mask not in state and not weight.is_meta and bool((weight == 0).any()):
            state[mask] = weight != 0


def _network_prefix(
    tensors: StateDict, source: str, wanted: str | None, layout: Layout | None
) -> tuple[str, Layout]:
    """What precedes the names of the network in a state dict, and its kind."""
    kinds: dict[str, Layout] = {}
    for each in LAYOUTS:
        matches = map(each.anywhere.match, tensors)
        kinds.update(dict.fromkeys((match[1] for match in matches if match), each))
    found = [name for name in kinds if layout in (None, kinds[name])]
    if not found:
        raise CheckpointError(_no_network(tensors, source, layout, kinds))
    if wanted:
        wanted = wanted.rstrip('.') + '.'
        names = {name: (name, _WRAPPED.sub('', name)) for name in found}  # without module. too
        fitting = [p for p in found if any(name.startswith(wanted) for name in names[p])]
        chosen = [p for p in fitting if wanted in names[p]]
    else:
        fitting = found
        chosen = [p for p in found if _USUAL_PREFIX.fullmatch(p)]
    if len(chosen) == 1 or len(fitting) == 1:
        name = (chosen or fitting)[0]
        return name, kinds[name]
    known = ', '.join(repr(name) for name in found)
    kind = (layout or kinds[found[0]]).kind
    if not fitting:
        raise CheckpointError(
            f'{source} has no {kind} under prefix={wanted!r}; there is one under {known}'
        )
    raise CheckpointError(
        f'{source} holds several {kind}s, under {known}. Say which one with prefix=, '
        f"for instance init_cfg=dict(type='Pretrained', checkpoint=..., prefix={fitting[0]!r})"
    )


def _no_network(
    tensors: StateDict, source: str, layout: Layout | None, kinds: Mapping[str, Layout]
) -> str:
    layout = layout or SHIFT_WISE
    if is_folded(tensors):
        return (
            f'{source} holds a folded network (saved after switch_to_deploy), from which '
            'no training can start: take the file from before folding. To infer with this one, use '
            'mmsw.apis.init_model or tools/test.py with the config of the whole model; or build '
            f'the network with {layout.backbone}(..., deploy=True), then call load_state_dict()'
        )
    if is_merged_slak(tensors):
        return (
            f'{source} holds a SLaK network whose branches are merged, from which no training can '
            'start: take the file from before merging'
        )
    others = [kind for kind in kinds.values() if kind is not layout]
    kind = f'a {others[0].kind}' if others else 'another network'
    cure = f". Its backbone is dict(type='{others[0].backbone}', ...)" if others else ''
    return (
        f'{source} holds {kind} ({len(tensors)} tensors, the first is {next(iter(tensors))!r}); a '
        f'{layout.kind} in training form was expected, with keys such as {layout.example}{cure}'
    )


def merged_paths(paths: list[Tensor], num_paths: int) -> list[Tensor]:
    """The same function in another number of paths: they are linear, only their sum counts."""
    if len(paths) == num_paths:
        return paths
    merged = torch.stack(paths).sum(0)
    return [merged / num_paths for _ in range(num_paths)]
