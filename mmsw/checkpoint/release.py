"""The authors' checkpoint layout in this project's names. Their names live here only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .files import CheckpointError, load_checkpoint_file

StateDict = dict[str, Tensor]

_WRAPPERS = ('model', 'state_dict')
_PREFIXES = ('module.', '_orig_mod.', 'backbone.')

# Applied in order to every key; the first match renames.
_RENAMES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r'\.large_kernel\.LoRAs\.(\d+)\.weight$', r'.shift_wise.paths.\1.weight'),
        (r'\.large_kernel\.LoRA\.weight$', '.shift_wise.paths.0.weight'),
        (r'\.large_kernel\.bn_lora1\.', '.shift_wise.norm_h.'),
        (r'\.large_kernel\.bn_lora2\.', '.shift_wise.norm_v.'),
        (r'\.large_kernel\.bn_small\.', '.shift_wise.norm_i.'),
        (r'\.pwconv1\.(?:1\.)?(weight|bias)$', r'.pointwise_conv1.\1'),
        (r'\.act\.1\.(gamma|beta)$', r'.grn.\1'),
        (r'\.pwconv2\.(?:0\.)?(weight|bias)$', r'.pointwise_conv2.\1'),
        (r'\.pwconv2\.2\.', '.norm2.'),
        (r'^norm\.', 'head.norm.'),
    )
]
_OWN = re.compile(r'\.shift_wise\.paths\.\d+\.weight$')
_RELEASE = re.compile(r'\.large_kernel\.LoRAs?\.(\d+\.)?weight$')
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


def to_state_dict(checkpoint: Any, source: str = 'checkpoint') -> StateDict:
    """Translate the contents of a checkpoint file, see :func:`load_release_checkpoint`."""
    tensors = _strip_prefixes(_unwrap(checkpoint, source))
    if any(_OWN.search(key) for key in tensors):
        renamed = tensors
    elif any(_RELEASE.search(key) for key in tensors):
        renamed = {_rename(key): tensor for key, tensor in tensors.items()}
        for key, tensor in renamed.items():
            if '.grn.' in key:
                renamed[key] = tensor.flatten()
    else:
        kind = 'another network'
        if any(_SLAK.search(key) for key in tensors):
            kind = 'a SLaK network'
        elif any(key.endswith('.deploy_wide') for key in tensors):
            kind = 'a folded network (saved after switch_to_deploy)'
        raise CheckpointError(
            f'{source} holds {kind} ({len(tensors)} tensors, the first is '
            f'{next(iter(tensors))!r}); a shift-wise network in training form was expected, with '
            'keys such as stages.0.0.large_kernel.LoRAs.0.weight'
        )
    for key in [key for key in renamed if _OWN.search(key)]:
        renamed.setdefault(key.removesuffix('weight') + 'mask', renamed[key] != 0)
    return renamed


def training_arguments(checkpoint: Any) -> dict[str, Any]:
    """Command line of the authors' training script, where the file holds one."""
    arguments = checkpoint.get('args') if isinstance(checkpoint, Mapping) else None
    return vars(arguments) if hasattr(arguments, '__dict__') else {}


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
    return tensors


def _strip_prefixes(tensors: StateDict) -> StateDict:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            inside = {
                key.removeprefix(prefix): tensor
                for key, tensor in tensors.items()
                if key.startswith(prefix)
            }
            if inside:  # a backbone inside a whole model: the heads around it are left out
                tensors, stripped = inside, True
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
    whole = torch.stack(paths).sum(0)
    return [whole / num_paths for _ in range(num_paths)]
