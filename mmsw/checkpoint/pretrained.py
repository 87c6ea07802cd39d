"""Filling a network from a checkpoint file, with one clear error when the two do not fit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmsw.errors import CheckpointError
from mmsw.sparsity import attach_saved_masks, masked_layers, set_masks
from mmsw.sparsity.layer_masks import saved_masks
from mmsw.wording import listed

from .addresses import read_checkpoint
from .layouts import SHIFT_WISE, Layout, layout_of
from .pruned import check_masks_placed, settle_zeros, warn_of_bare_zeros, warn_of_empty_masks
from .published import check_drawn
from .records import read_records
from .release import StateDict, merged_paths, to_state_dict
from .shape import PATH, NetworkShape, stored_kernels
from .slak_shape import SLaKShape
from .stem import fit_stem

# What a classification checkpoint cannot bring, and what a backbone has no use for.
_MAY_MISS = re.compile(r'^norm\d\.|\.pattern\.|\.variant\.|\.channel_order$|\.mask$')
_MAY_BE_LEFT = re.compile(r'^head\.|^norm\d\.')
_STAGE = re.compile(r'^(?:downsample_layers\.|stages\.|norm)(\d+)\.')


def load_pretrained(
    net: nn.Module,
    path: str | os.PathLike[str],
    prefix: str | None = None,
    input_weights: str | None = None,
) -> None:
    """Fill a :class:`~mmsw.models.ShiftWiseNet` or a :class:`~mmsw.models.SLaK` from a file.

    The file is a published one or one of this project.

    Parameters that no classification checkpoint has (the output norms) keep their initial values;
    the classifier is left out, and so are stages that the network does not build. Another number of
    paths is matched by summing or evenly splitting them, which leaves the function as it is.

    No zero is lost: the exact zeros of every path are in its mask afterwards, and a layer for which
    the file brings a mask gets one, see :func:`mmsw.sparsity.attach_saved_masks`; of SLaK, so does
    every layer whose weight has zeros. In the file of a
    run with dynamic sparsity, the masks of the file count: weights that have just grown are zero.

    Args:
        net: The network.
        path: Local file or address, see :func:`mmsw.checkpoint.read_checkpoint`.
        prefix: What precedes the backbone's names in the file (``'teacher.backbone.'``); ``None``:
            it is looked for.
        input_weights: How the first convolution is filled from a file for another number of image
            channels: ``'mean'`` (every channel gets the mean over those of the file) or
            ``'repeat'`` (those of the file in turn), scaled; ``None``: refuse such a file.

    Raises:
        CheckpointError: If the file cannot be read, or is of a network of another generation, size,
            width or kernel; the network is left as it was.
    """
    fill_network(net, read_checkpoint(path), str(path), prefix, input_weights)


def fill_network(
    net: nn.Module,
    checkpoint: Any,
    source: str,
    prefix: str | None = None,
    input_weights: str | None = None,
) -> tuple[list[str], list[str]]:
    """Fill a network from the contents of a checkpoint file, see :func:`load_pretrained`.

    Args:
        net: The network.
        checkpoint: What the file holds.
        source: Its name, for messages.
        prefix: See :func:`load_pretrained`.
        input_weights: See :func:`load_pretrained`.

    Returns:
        Names that the network has and the file lacks, and the reverse.

    Raises:
        CheckpointError: If the two do not fit; the network is left as it was.
    """
    net = getattr(net, '_orig_mod', net)  # of torch.compile, which puts it before every name
    own = net.state_dict()
    layout = layout_of(own)
    if layout is None:
        raise CheckpointError(
            f'{source}: the network to fill has no small kernels any more (deployed?); load first '
            '(deploy=False), then call switch_to_deploy()'
        )
    state = to_state_dict(checkpoint, source, prefix, layout)
    surplus = _pop_surplus_stages(state, own)
    found, expected = layout.shape.of(state, source), layout.shape.of(own)
    _check_same_network(state, found, expected, checkpoint, net, layout, source)
    fit_stem(state, own, input_weights, source)
    check_drawn(own, state, source)
    settle_zeros(state, checkpoint, source)
    warn_of_empty_masks(state, source)
    if layout is SHIFT_WISE:
        _match_paths(state, found.num_paths, expected.num_paths, source)
    brought = _pop_brought_masks(state, own)
    missing, unused = missing_and_unused(state, own)
    _check_tensors(state, own, missing, unused, source)
    check_masks_placed(state, net, source, trains=True)
    before = {key: tensor.clone() for key, tensor in own.items()}
    try:
        net.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a layer found its tables unfit; others are filled already
        net.load_state_dict(before)
        raise CheckpointError(f'{source} does not fit: {error}') from error
    _set_masks(net, state, brought)
    used = {**{key: state[key] for key in state if key not in unused}, **brought}
    warn_of_bare_zeros(used, source)
    missing = [key for key in missing if key not in brought]
    density = _density({**state, **brought}, layout)
    masked = f'{len(brought)} {"other " * (layout is SHIFT_WISE)}layers' if brought else ''
    _log(source, len(own), missing, unused, surplus, density, masked)
    return missing, unused + surplus


def _log(
    source: str,
    total: int,
    missing: list[str],
    unused: list[str],
    surplus: list[str],
    density: str,
    brought: str,
) -> None:
    """Say what was loaded."""
    print_log(
        f'loaded {source}: {total - len(missing)} of {total} tensors; not in the file: '
        f'{listed(missing)}; not used: {listed(unused)}'
        + (f'; behind the last output: stages {_stages(surplus)}' if surplus else '')
        + f'; weight density of {density}'
        + (f'; {brought} are masked as in the file' if brought else ''),
        logger='current',
    )


def missing_and_unused(state: StateDict, own: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Names that the network has and the file lacks, and the reverse."""
    return [key for key in own if key not in state], [key for key in state if key not in own]


def _pop_surplus_stages(state: StateDict, own: Mapping[str, Tensor]) -> list[str]:
    """Take what belongs to stages behind the network's last one out of a state dict."""
    built = {int(match[1]) for match in map(_STAGE.match, own) if match}
    surplus = [key for key in state if (match := _STAGE.match(key)) and int(match[1]) > max(built)]
    for key in surplus:
        del state[key]
    return surplus


def _stages(names: list[str]) -> list[int]:
    return sorted({int(_STAGE.match(name)[1]) for name in names})


def _check_same_network(
    state: StateDict,
    found: NetworkShape | SLaKShape,
    expected: NetworkShape | SLaKShape,
    checkpoint: Any,
    net: nn.Module,
    layout: Layout,
    source: str,
) -> None:
    problems = [
        f'{name} {getattr(found, name)} instead of {getattr(expected, name)}'
        for name in found.compared
        if getattr(found, name) != getattr(expected, name)
    ]
    problems += _recorded_differences(checkpoint, net, len(expected.depths), source)
    problems += _pattern_differences(state, found.small_kernel, net)
    if problems:
        raise CheckpointError(
            f'{source} is of another network: {"; ".join(problems)}.\n  found:    {found}\n'
            f'  expected: {expected}\nChoose {layout.choose} of the backbone to match the file, or '
            'take the file that matches them'
        )


def _check_tensors(
    state: StateDict,
    own: Mapping[str, Tensor],
    missing: list[str],
    unused: list[str],
    source: str,
) -> None:
    missing = [key for key in missing if not _MAY_MISS.search(key)]
    unused = [key for key in unused if not _MAY_BE_LEFT.search(key)]
    shapes = [
        f'{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}'
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unused or shapes:
        raise CheckpointError(
            f'{source} does not fit: missing {listed(missing)}; unexpected {listed(unused)}; '
            f'other shapes: {listed(shapes)}{_options_hint(unused)}'
        )


def _options_hint(unused: list[str]) -> str:
    if not any('.variant.' in key for key in unused):
        return ''
    return (
        '. The file has an operator with other options (padding, branch_weights, position, '
        'identity): build it with the options of the file'
    )


def _pop_brought_masks(state: StateDict, own: Mapping[str, Tensor]) -> StateDict:
    """Take the masks of ordinary layers, which bring none themselves, out of a state dict."""
    masks = {
        name: mask
        for name, weight, mask in saved_masks(state)
        if not PATH.match(f'{name}.weight') and weight.ndim > 1 and f'{name}.weight' in own
    }
    return {f'{name}.mask': state.pop(f'{name}.mask') for name in masks}


def _set_masks(net: nn.Module, state: StateDict, brought: StateDict) -> None:
    """Mask ordinary layers as the file has them, once the weights are in the network."""
    attach_saved_masks(net, {**state, **brought})
    masks = {}
    for name, _ in masked_layers(net):
        if not PATH.match(f'{name}.weight') and f'{name}.weight' in state:
            # A layer that was masked before, in a network or by a hook, is as the file has it.
            masks[name] = brought.get(f'{name}.mask', state[f'{name}.weight'] != 0)
    set_masks(net, masks)


def _density(state: StateDict, layout: Layout) -> str:
    """Of the kernels of the operator, and what these are called."""
    weights = {key.removesuffix('weight'): state[key] for key in layout.kernels(state)}
    masks = [state.get(f'{name}mask', weight != 0) for name, weight in weights.items()]
    share = sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    return f'the {"small" if layout is SHIFT_WISE else "large"} kernels {share:.4f}'


def _match_paths(state: StateDict, found: int, expected: int, source: str) -> None:
    if found == expected:
        return
    print_log(
        f'{source} has {found} path(s), the network {expected}: their sum is kept'
        + (', split evenly' if expected > 1 else ''),
        logger='current',
        level=30,
    )
    layers = {key.rsplit('.', 2)[0] for key in state if PATH.match(key)}
    for layer in layers:
        masks = [state.pop(f'{layer}.{p}.mask') for p in range(found)]
        old = [
            torch.where(mask, state.pop(f'{layer}.{p}.weight'), 0.0) for p, mask in enumerate(masks)
        ]
        for p, weight in enumerate(merged_paths(old, expected)):
            state[f'{layer}.{p}.weight'] = weight
            state[f'{layer}.{p}.mask'] = torch.stack(masks).any(0)


def _recorded_differences(
    checkpoint: Any, net: nn.Module, num_stages: int, source: str
) -> list[str]:
    """Differences that leave no trace in any shape, from what the file records."""
    recorded = read_records(checkpoint, source)
    if recorded is None:
        return []
    problems = []
    if recorded.big_kernels is not None:
        told, own = (tuple(k)[:num_stages] for k in (recorded.big_kernels, net.big_kernels))
        if told != own:
            problems.append(f'big_kernels {told} instead of {own}')
    num_reps = getattr(net, 'num_reps', recorded.num_reps)  # SLaK repeats nothing
    if recorded.num_reps is not None and recorded.num_reps != num_reps:
        problems.append(f'num_reps {recorded.num_reps} instead of {num_reps}')
    return problems


def _pattern_differences(state: StateDict, small_kernel: int, net: nn.Module) -> list[str]:
    """The same, from the shift patterns of this project's own files."""
    problems = []
    for stage, big_kernel in enumerate(net.big_kernels):
        pattern = f'stages.{stage}.0.shift_wise.pattern.'
        if f'{pattern}shift_hv' not in state or f'{pattern}identity_index' not in state:
            continue
        found = stored_kernels(state, pattern, small_kernel)
        if big_kernel not in found:
            either = ' or '.join(map(str, found))
            problems.append(f'big kernel {either} in stage {stage} instead of {big_kernel}')
        num_reps = state[f'{pattern}identity_index'].shape[-1]
        if num_reps != net.num_reps:
            problems.append(f'num_reps {num_reps} instead of {net.num_reps}')
    return list(dict.fromkeys(problems))
