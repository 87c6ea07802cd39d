"""The authors' checkpoint layout in this project's names. Their names live here only."""

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
from .pruned import plain_weights
from .published import check_generators

StateDict = dict[str, Tensor]

_WRAPPERS = ('model', 'state_dict')
_USUAL_PREFIX = re.compile(r'(?:module\.|_orig_mod\.|backbone\.)*')
_WRAPPED = re.compile(r'^(?:module\.|_orig_mod\.)*')

# Applied in order to every key; the first match renames.
_RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r'\.large_kernel\.LoRAs\.(\d+)\.(weight|mask)$', r'.shift_wise.paths.\1.\2'),
        (r'\.large_kernel\.LoRA\.(weight|mask)$', r'.shift_wise.paths.0.\1'),
        (r'\.large_kernel\.bn_lora1\.', '.shift_wise.norm_h.'),
        (r'\.large_kernel\.bn_lora2\.', '.shift_wise.norm_v.'),
        (r'\.large_kernel\.bn_small\.', '.shift_wise.norm_i.'),
        (r'\.pwconv1\.(?:1\.)?(weight|bias|mask)$', r'.pointwise_conv1.\1'),
        (r'\.act\.1\.(gamma|beta)$', r'.grn.\1'),
        (r'\.pwconv2\.(?:0\.)?(weight|bias|mask)$', r'.pointwise_conv2.\1'),
        (r'\.pwconv2\.2\.', '.norm2.'),
        (r'^norm\.', 'head.norm.'),
    )
]
_OWN = re.compile(r'\.shift_wise\.paths\.\d+\.weight$')
_NETWORK = re.compile(
    r'^((?:.*?\.)?)stages\.\d+\.\d+\.(?:shift_wise\.paths\.\d+|large_kernel\.LoRAs?(?:\.\d+)?)'
    r'\.(?:weight|weight_orig|parametrizations\.weight\.original)$'
)
_SLAK = re.compile(r'\.large_kernel\.(LoRA1|LoRA2|lkb_origin|small_conv)\.')


def load_release_checkpoint(path: str | os.PathLike[str], trust: bool = False) -> StateDict:
    """Read a published checkpoint, or one of this project, as this project's state dict.

    Args:
        path: File as published: bare or under ``model`` / ``state_dict``, with or without
            ``module.`` and ``backbone.`` before the keys, paths apart or merged.
        trust: See :func:`mmsw.checkpoint.load_checkpoint_file`.

    Returns:
        State dict of the backbone, a mask beside every path (taken from its exact zeros where the
        file has none), and the classifier under ``head.`` (its layer norm under ``head.norm.``).

    Raises:
        CheckpointError: If the file cannot be read or holds no shift-wise network.
    """
    return to_state_dict(load_checkpoint_file(path, trust), source=str(path))


def to_state_dict(
    checkpoint: Any, source: str = 'checkpoint', prefix: str | None = None
) -> StateDict:
    """Translate the contents of a checkpoint file, see :func:`load_release_checkpoint`.

    Args:
        checkpoint: What the file holds.
        source: Its name, for messages.
        prefix: What precedes the backbone's names in the file, with or without a dot at the end.
            ``None``: it is looked for; a file with several shift-wise networks needs it.

    Returns:
        As :func:`load_release_checkpoint`.

    Raises:
        CheckpointError: If there is no shift-wise network, or more than one to choose from; or if
            its shift patterns would have to be drawn, and are drawn otherwise than they were.
    """
    tensors = _unwrap(checkpoint, source)
    found = _network_prefix(tensors, source, prefix)
    tensors = {
        key.removeprefix(found): tensor for key, tensor in tensors.items() if key.startswith(found)
    }
    renamed = plain_weights(tensors, source)
    if not any(_OWN.search(key) for key in renamed):
        renamed = {_rename(key): tensor for key, tensor in renamed.items()}
        for key, tensor in renamed.items():
            if '.grn.' in key:
                renamed[key] = tensor.flatten()
    for key in [key for key in renamed if _OWN.search(key)]:
        renamed.setdefault(key.removesuffix('weight') + 'mask', renamed[key] != 0)
    if not any(key.endswith('.pattern.shift_hv') for key in renamed):
        check_generators(source)
    return renamed


def _network_prefix(tensors: StateDict, source: str, wanted: str | None) -> str:
    """What precedes the names of the shift-wise network in a state dict."""
    found = list(dict.fromkeys(match[1] for match in map(_NETWORK.match, tensors) if match))
    if not found:
        raise CheckpointError(_no_network(tensors, source))
    if wanted:
        wanted = wanted.rstrip('.') + '.'
        names = {name: (name, _WRAPPED.sub('', name)) for name in found}  # without module. too
        fitting = [p for p in found if any(name.startswith(wanted) for name in names[p])]
        chosen = [p for p in fitting if wanted in names[p]]
    else:
        fitting = found
        chosen = [p for p in found if _USUAL_PREFIX.fullmatch(p)]
    if len(chosen) == 1 or len(fitting) == 1:
        return (chosen or fitting)[0]
    known = ', '.join(repr(name) for name in found)
    if not fitting:
        raise CheckpointError(
            f'{source} has no shift-wise network under prefix={wanted!r}; there is one under '
            f'{known}'
        )
    raise CheckpointError(
        f'{source} holds several shift-wise networks, under {known}. Say which one with prefix=, '
        f"for instance init_cfg=dict(type='Pretrained', checkpoint=..., prefix={fitting[0]!r})"
    )


def _no_network(tensors: StateDict, source: str) -> str:
    if is_folded(tensors):
        return (
            f'{source} holds a folded network (saved after switch_to_deploy), from which '
            'no training can start: take the file from before folding. To infer with this one, use '
            'mmsw.apis.init_model or tools/test.py with the config of the whole model; or build '
            'the network with ShiftWiseNet(..., deploy=True), then call load_state_dict()'
        )
    kind = 'a SLaK network' if any(map(_SLAK.search, tensors)) else 'another network'
    return (
        f'{source} holds {kind} ({len(tensors)} tensors, the first is {next(iter(tensors))!r}); a '
        'shift-wise network in training form was expected, with keys such as '
        'stages.0.0.large_kernel.LoRAs.0.weight'
    )


def _unwrap(checkpoint: Any, source: str) -> StateDict:
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


def _rename(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key, count = pattern.subn(replacement, key)
        if count:
            break
    return key


def merged_paths(paths: list[Tensor], num_paths: int) -> list[Tensor]:
    """The same function in another number of paths: they are linear, only their sum counts."""
    if len(paths) == num_paths:
        return paths
    merged = torch.stack(paths).sum(0)
    return [merged / num_paths for _ in range(num_paths)]
