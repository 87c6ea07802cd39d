"""Reading what a training run saved, and refusing what does not fill the model."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.runner import CheckpointLoader
from torch import nn

from mmsw.checkpoint import CheckpointError, load_checkpoint_file

from .errors import UsageError

# Keys of a model that was wrapped for several processes.
REVISE_KEYS = [(r'^module\.', '')]


def existing_file(path: str | os.PathLike[str], what: str) -> str:
    """The path of a local file that is there, or an address, as text.

    Raises:
        UsageError: If a local file does not exist; ``what`` names its role.
    """
    name = os.fspath(path)
    if '://' not in name and not Path(name).is_file():
        raise UsageError(f'{what} {name} does not exist (working folder: {Path.cwd()})')
    return name


def read_checkpoint(filename: str) -> Any:
    """Read a checkpoint onto the CPU, a local file or an address, without running what is in it.

    The onedl fork of mmengine reads files that torch refuses as unsafe after a warning; this does
    not.

    Raises:
        CheckpointError: If the file is damaged or asks for more than data.
    """
    if '://' not in filename:
        return load_checkpoint_file(filename)
    if not filename.startswith(('http://', 'https://')):
        return CheckpointLoader.load_checkpoint(filename, 'cpu')
    try:
        with fileio.get_local_path(filename) as path:
            return load_checkpoint_file(path)
    except OSError as error:
        raise CheckpointError(f'checkpoint {filename} cannot be fetched: {error}') from error


def state_dict_of(checkpoint: Any, revise_keys: list[tuple[str, str]] = REVISE_KEYS) -> OrderedDict:
    """The state dict in a checkpoint, with ``(pattern, replacement)`` applied to its keys."""
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else {}
    revised = OrderedDict()
    for key, value in state.items():
        for pattern, replacement in revise_keys:
            key = re.sub(pattern, replacement, key)
        revised[key] = value
    revised._metadata = getattr(state, '_metadata', OrderedDict())
    return revised


def check_whole(state: dict, model: nn.Module, filename: str) -> None:
    """Refuse a state dict that leaves parameters of a model as they are.

    Raises:
        CheckpointError: If it lacks some, or has them in another shape.
    """
    own = dict(model.named_parameters())
    missing = [name for name in own if name not in state]
    other = [
        f'{name} {tuple(state[name].shape)} instead of {tuple(param.shape)}'
        for name, param in own.items()
        if name in state and state[name].shape != param.shape
    ]
    if missing or other:
        first = '; '.join([*(f'no {name}' for name in missing[:3]), *other[:3]])
        raise CheckpointError(
            f'{filename} does not fit the {type(model).__name__} of the config: {len(missing)} of '
            f'{len(own)} parameters are missing and {len(other)} have another shape ({first}). '
            'Expected is a checkpoint that a training run with this config saved'
        )
