"""Filling a network from a checkpoint file, with one clear error when the two do not fit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .addresses import read_checkpoint
from .files import CheckpointError
from .release import StateDict, merged_paths, to_state_dict, training_arguments

_PATH = re.compile(r'^stages\.(\d+)\.(\d+)\.shift_wise\.paths\.(\d+)\.weight$')
# What a classification checkpoint cannot bring, and what a backbone has no use for.
_MAY_MISS = re.compile(r'^norm\d\.|\.pattern\.|\.channel_order$|\.mask$')
_MAY_BE_LEFT = re.compile(r'^head\.|^norm\d\.')


@dataclass(frozen=True)
class NetworkShape:
    """What the tensors of a shift-wise network tell about it.

    Attributes:
        version: ``'v1'`` or ``'v2'``.
        depths: Blocks per stage.
        dims: Channels per stage.
        num_active: Channels per stage that take part in the operator.
        small_kernel: Side N of the small kernels.
        num_filters: Small kernels per stage and layer, ``num_active * ceil(M / N)``.
        num_paths: Parallel sets of small kernels.
    """

    version: str
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    num_active: tuple[int, ...]
    small_kernel: int
    num_filters: tuple[int, ...]
    num_paths: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor], source: str = 'state dict') -> NetworkShape:
        """Read it off a state dict of this project (without prefix); ``source`` is for messages.

        Raises:
            CheckpointError: If the state dict lacks tensors that every shift-wise network has.
        """
        try:
            return cls._of(state)
        except KeyError as error:
            raise CheckpointError(f'{source} is incomplete: it has no tensor {error}') from error

    @classmethod
    def _of(cls, state: Mapping[str, Tensor]) -> NetworkShape:
        found = [match for match in map(_PATH.match, state) if match]
        stages = sorted({int(match[1]) for match in found})
        blocks = {s: {int(m[2]) for m in found if int(m[1]) == s} for s in stages}
        firsts = [f'stages.{s}.{min(blocks[s])}' for s in stages]
        weights = [state[f'{first}.shift_wise.paths.0.weight'] for first in firsts]
        return cls(
            version='v2' if any('.grn.' in key or '.se.' in key for key in state) else 'v1',
            depths=tuple(len(blocks[s]) for s in stages),
            dims=tuple(state[f'{f}.pointwise_conv1.weight'].shape[1] for f in firsts),
            num_active=tuple(state[f'{f}.shift_wise.norm_h.weight'].shape[0] for f in firsts),
            small_kernel=weights[0].shape[-1],
            num_filters=tuple(weight.shape[0] for weight in weights),
            num_paths=1 + max(int(match[3]) for match in found),
        )

    def __str__(self) -> str:
        groups = tuple(f // a for f, a in zip(self.num_filters, self.num_active, strict=True))
        reach = tuple(f'{(g - 1) * self.small_kernel + 1}..{g * self.small_kernel}' for g in groups)
        return (
            f'{self.version}, depths {self.depths}, dims {self.dims}, '
            f'{self.num_active} channels in the operator, small kernel {self.small_kernel}, '
            f'big kernels in {reach}, {self.num_paths} path(s)'
        )


def load_pretrained(net: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill a :class:`~mmsw.models.ShiftWiseNet` from a published file or one of this project.

    Parameters that no classification checkpoint has (the output norms) keep their initial values;
    the classifier is left out. Another number of paths is matched by summing or evenly splitting
    them, which leaves the function as it is. The exact zeros of every path become its mask.

    Args:
        net: The network.
        path: Local file or address, see :func:`mmsw.checkpoint.read_checkpoint`.

    Raises:
        CheckpointError: If the file cannot be read, or is of a network of another generation, size,
            width or kernel; the network is left as it was.
    """
    fill_network(net, read_checkpoint(path), source=str(path))


def fill_network(net: nn.Module, checkpoint: Any, source: str) -> tuple[list[str], list[str]]:
    """Fill a network from the contents of a checkpoint file, see :func:`load_pretrained`.

    Args:
        net: The network.
        checkpoint: What the file holds.
        source: Its name, for messages.

    Returns:
        Names that the network has and the file lacks, and the reverse.

    Raises:
        CheckpointError: If the two do not fit; the network is left as it was.
    """
    state = to_state_dict(checkpoint, source)
    own = net.state_dict()
    _check_fit(state, own, checkpoint, net, source)
    missing, unused = fit_report(state, own)
    before = {key: tensor.clone() for key, tensor in own.items()}
    try:
        net.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a layer found its tables unfit; others are filled already
        net.load_state_dict(before)
        raise CheckpointError(f'{source} does not fit: {error}') from error
    weights = [state[key] for key in state if _PATH.match(key)]
    kept = sum(int(torch.count_nonzero(weight)) for weight in weights)
    print_log(
        f'loaded {source}: {len(own) - len(missing)} of {len(own)} tensors; not in the file: '
        f'{_summary(missing)}; not used: {_summary(unused)}; '
        f'weight density of the small kernels {kept / sum(w.numel() for w in weights):.4f}',
        logger='current',
    )
    return missing, unused


def fit_report(state: StateDict, own: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Names that the network has and the file lacks, and the reverse."""
    return [key for key in own if key not in state], [key for key in state if key not in own]


def _check_fit(
    state: StateDict, own: Mapping[str, Tensor], checkpoint: Any, net: nn.Module, source: str
) -> None:
    """Adapt the number of paths in ``state``; raise unless everything else fits."""
    if not any(map(_PATH.match, own)):
        raise CheckpointError(
            f'{source}: the network to fill has no small kernels any more (deployed?); load first, '
            'then call switch_to_deploy()'
        )
    found, expected = NetworkShape.of(state, source), NetworkShape.of(own)
    problems = [
        f'{name} {getattr(found, name)} instead of {getattr(expected, name)}'
        for name in ('version', 'depths', 'dims', 'num_active', 'small_kernel', 'num_filters')
        if getattr(found, name) != getattr(expected, name)
    ]
    problems += _recorded_differences(checkpoint, net)
    problems += _pattern_differences(state, found.small_kernel, net)
    if problems:
        raise CheckpointError(
            f'{source} is of another network: {"; ".join(problems)}.\n  found:    {found}\n'
            f'  expected: {expected}\nChoose arch, version, big_kernels, small_kernel, num_reps '
            'and ghost_ratio of the backbone to match the file, or take the file that matches them'
        )
    _match_paths(state, found.num_paths, expected.num_paths, source)
    missing, unused = fit_report(state, own)
    missing = [key for key in missing if not _MAY_MISS.search(key)]
    unused = [key for key in unused if not _MAY_BE_LEFT.search(key)]
    shapes = [
        f'{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}'
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unused or shapes:
        raise CheckpointError(
            f'{source} does not fit: missing {_summary(missing)}; unexpected {_summary(unused)}; '
            f'other shapes: {_summary(shapes)}'
        )


def _match_paths(state: StateDict, found: int, expected: int, source: str) -> None:
    if found == expected:
        return
    print_log(
        f'{source} has {found} path(s), the network {expected}: their sum is kept'
        + (', split evenly' if expected > 1 else ''),
        logger='current',
        level=30,
    )
    layers = {key.rsplit('.', 2)[0] for key in state if _PATH.match(key)}
    for layer in layers:
        old = [
            torch.where(state.pop(f'{layer}.{p}.mask'), state.pop(f'{layer}.{p}.weight'), 0.0)
            for p in range(found)
        ]
        for p, weight in enumerate(merged_paths(old, expected)):
            state[f'{layer}.{p}.weight'] = weight
            state[f'{layer}.{p}.mask'] = weight != 0


def _recorded_differences(checkpoint: Any, net: nn.Module) -> list[str]:
    """Differences that leave no trace in any shape, from the release's own command line."""
    arguments = training_arguments(checkpoint)
    problems = []
    kernels = arguments.get('kernel_size')
    if isinstance(kernels, (list, tuple)) and tuple(kernels[:-1]) != net.big_kernels:
        problems.append(f'big_kernels {tuple(kernels[:-1])} instead of {net.big_kernels}')
    repetitions = arguments.get('N_rep')
    if repetitions is not None and repetitions != net.num_reps:
        problems.append(f'num_reps {repetitions} instead of {net.num_reps}')
    return problems


def _pattern_differences(state: StateDict, small_kernel: int, net: nn.Module) -> list[str]:
    """The same, from the shift patterns of this project's own files."""
    problems = []
    for stage, big_kernel in enumerate(net.big_kernels):
        pattern = f'stages.{stage}.0.shift_wise.pattern.'
        if f'{pattern}shift_hv' not in state or f'{pattern}identity_index' not in state:
            continue
        half = int(state[f'{pattern}shift_hv'].max()) + small_kernel - 1
        if half != big_kernel // 2:
            problems.append(
                f'big kernel {2 * half} or {2 * half + 1} in stage {stage} instead of {big_kernel}'
            )
        num_reps = state[f'{pattern}identity_index'].shape[-1]
        if num_reps != net.num_reps:
            problems.append(f'num_reps {num_reps} instead of {net.num_reps}')
    return list(dict.fromkeys(problems))


def _summary(names: list[str]) -> str:
    if not names:
        return 'none'
    shown = ', '.join(names[:4])
    return shown if len(names) <= 4 else f'{shown} and {len(names) - 4} more'
