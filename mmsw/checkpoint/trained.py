"""Reading what a training run saved, and refusing what does not fill the model."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from mmsw.errors import CheckpointError, MmswError, StateDictError, UsageError
from mmsw.ops import ShiftPattern
from mmsw.sparsity import attach_saved_masks
from mmsw.sparsity.foreign_masks import foreign_masks_aside
from mmsw.sparsity.layer_masks import normalised_masks
from mmsw.wording import short

from .addresses import check_address
from .folded import folded_layers, folded_tensors, layers_folded_in

# How the names of exported files end, which are no checkpoints.
EXPORTED = ('.onnx', '.xml', '.pt2')
# Keys of a model that was wrapped for several processes.
REVISE_KEYS = [(r'^module\.', '')]


def existing_file(
    path: str | os.PathLike[str], what: str, error: type[MmswError] = UsageError
) -> str:
    """The path of a local file that is there, or an address, as text.

    Raises:
        UsageError: If a local file does not exist, is a folder, or an exported model; ``what``
            names its role. Where callers expect another class, that is ``error``.
        CheckpointError: If the address is of a kind that cannot be read.
    """
    name = os.fspath(path)
    if '://' in name:
        check_address(name)
    elif not Path(name).is_file():
        problem = 'is a folder' if Path(name).is_dir() else 'does not exist'
        raise error(f'{what} {name} {problem} (working folder: {Path.cwd()}){_alike(name)}')
    elif Path(name).suffix.lower() in EXPORTED:
        raise error(
            f'{what} {name} is an exported file: tools/predict.py and mmsw.apis.load_exported take '
            'it alone, without a config'
        )
    return name


def _alike(path: str) -> str:
    """The file beside a missing one that its name is most like, as the end of a message."""
    folder = Path(path).parent
    names = [item.name for item in folder.iterdir() if item.is_file()] if folder.is_dir() else []
    found = get_close_matches(Path(path).name, names, n=1)
    return f'; did you mean {folder / found[0]}?' if found else ''


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


def check_fills(state: Mapping[str, Any], model: nn.Module, filename: str) -> None:
    """Refuse a state dict that has no parameter of a model.

    Raises:
        CheckpointError: If a model would keep all the values it has.
    """
    own = dict(model.named_parameters())
    if own and not any(name in state for name in own):
        raise CheckpointError(
            f'{filename} fills nothing of the {type(model).__name__} of the config: its tensors '
            f'are called {list(state)[:3]}, those of the model {list(own)[:3]}. Expected is a '
            'checkpoint of the whole model; a file of the backbone alone goes to --pretrained or '
            'model.backbone.init_cfg'
        )


def take_form(
    model: nn.Module, state: MutableMapping[str, Any], filename: str = 'the checkpoint'
) -> None:
    """Give a model the form that a state dict has, in place, before it is loaded.

    Layers that the state dict has folded are folded, and ordinary layers whose mask it brings get a
    mask. The masks of the state dict, which may be numbers or one per filter, become boolean and of
    the shape of their weights, also in place.

    Raises:
        CheckpointError: If a layer is folded already, and the state dict has it in training form;
            or if the state dict has a shift pattern of other sizes than a layer.
        SparsityError: If the ``X.mask`` of a layer with masks is no mask of its weight.
    """
    check_form(model, state, filename)
    layers = dict(model.named_modules())
    for name in layers_folded_in(state):
        block = name.rpartition('.')[0]  # of a file of the form before blocks were folded
        if hasattr(layers.get(block), 'take_earlier_form'):
            name = block
        if hasattr(layers.get(name), 'switch_to_deploy'):
            layers[name].switch_to_deploy()
        if hasattr(layers.get(name), 'take_earlier_form'):
            layers[name].take_earlier_form(state, f'{name}.')
    with foreign_masks_aside(state, model):
        state.update(normalised_masks(state))
        attach_saved_masks(model, state)


def check_form(model: nn.Module, state: Mapping[str, Any], filename: str) -> None:
    """Refuse what mmengine would leave out with a warning.

    Raises:
        CheckpointError: As :func:`take_form`.
    """
    for name in folded_layers(model):
        if any(f'{name}.{part}paths.0.weight' in state for part in ('', 'shift_wise.')):
            raise CheckpointError(
                f'{filename} has {name} in training form, and the config builds it folded: leave '
                'deploy=True out of the backbone of the config; mmsw.apis.init_model(..., '
                'deploy=True) folds the model after loading'
            )
    for name, module in model.named_modules():
        if isinstance(module, ShiftPattern):
            try:
                module.check_state(state, f'{name}.')
            except ValueError as error:
                raise CheckpointError(
                    f'{filename} does not fit the {type(model).__name__} of the config: the shift '
                    f'pattern {name} cannot be loaded: {error}'
                ) from error


def check_complete(state: dict, model: nn.Module, filename: str) -> None:
    """Refuse a state dict that leaves parameters of a model as they are.

    Folded kernels count as parameters.

    Raises:
        CheckpointError: If it lacks some, or has them in another shape or in whole numbers.
    """
    own = {**dict(model.named_parameters()), **folded_tensors(model)}
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
    floating = [name for name, param in own.items() if param.is_floating_point()]
    whole = [name for name in floating if not state[name].is_floating_point()]
    if whole:
        raise CheckpointError(
            f'{filename} has {len(whole)} of {len(own)} parameters in whole numbers '
            f'({whole[0]}: {state[whole[0]].dtype}), as a quantised model has them; without their '
            'scales they are other weights. Take the checkpoint from before the quantisation'
        )


def fill(model: nn.Module, state: Mapping[str, Any], filename: str) -> None:
    """Load a state dict that :func:`check_complete` has passed, statistics and patterns included.

    Raises:
        CheckpointError: If a layer refuses what it gets, or a buffer is missing.
    """
    try:
        missing = model.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        why = str(error) if isinstance(error, StateDictError) else short(error)
        raise CheckpointError(
            f'{filename} does not fit the {type(model).__name__} of the config ({why})'
        ) from error
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    if missing:
        raise CheckpointError(
            f'{filename} does not fill the {type(model).__name__} of the config: it lacks '
            f'{len(missing)} buffers, among them {missing[0]}'
        )
