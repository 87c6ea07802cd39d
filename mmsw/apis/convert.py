"""A published checkpoint, rewritten once in this project's own form."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmsw.analysis.sparsity.layers import PUBLISHED_KERNELS, PUBLISHED_REPS, read_network
from mmsw.checkpoint import (
    NetworkShape,
    Recorded,
    check_address,
    fill_network,
    load_checkpoint_file,
    network_record,
    read_checkpoint,
    read_records,
    save_checkpoint_file,
    to_state_dict,
)
from mmsw.checkpoint.layouts import SLAK, layout_of
from mmsw.checkpoint.records import recorded_arguments
from mmsw.checkpoint.slak_shape import SLaKShape
from mmsw.errors import CheckpointError
from mmsw.models import ShiftWiseNet, SLaK
from mmsw.models.layers.variant_options import VariantOptions
from mmsw.sparsity import SparsityReport, report

_PUBLISHED_GHOST_RATIO = 0.23
_NUM_STAGES = 4
_IMAGE_CHANNELS = 3
_LAYER_SCALE = re.compile(r'^stages\.\d+\.\d+\.gamma$')
_RECORD_ONLY = ('layer_scale_init_value', 'norm_cfg', 'output_norm')
_TOLD = ('big_kernels', 'ghost_ratio', 'num_reps')
_STEM = 'downsample_layers.0.0.weight'


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        shape: The network in the file.
        used: Names of the written tensors that the file had.
        derived: Names that the file lacks and that follow from it: patterns and channel order from
            the seed of the release. They are written.
        missing: Names that the network has and the file cannot tell: the output norms. They are
            left out.
        unused: Names in the file that are neither of the backbone nor of its classifier.
        sparsity: Densities of the network.
    """

    shape: NetworkShape | SLaKShape
    used: list[str]
    derived: list[str]
    missing: list[str]
    unused: list[str]
    sparsity: SparsityReport

    def __str__(self) -> str:
        def listed(names: list[str]) -> str:
            return ''.join(f'\n  {name}' for name in names) or ' none'

        return (
            f'network: {self.shape}\nkeys used: {len(self.used)}, derived: {len(self.derived)}\n'
            f'keys unused: {len(self.unused)}{listed(self.unused)}\n'
            f'keys missing: {len(self.missing)}{listed(self.missing)}\n{self.sparsity}'
        )


def _check_destination(src: str, dst: Path) -> None:
    """Raise now if the file could not be written later, or would replace its source."""
    if dst.is_dir():
        raise CheckpointError(f'{dst} is a folder; name the file to write')
    existing = next(path for path in dst.absolute().parents if path.exists())
    if not existing.is_dir():
        raise CheckpointError(f'{existing} is a file, but {dst} needs a folder there')
    if Path(src).exists() and dst.exists() and dst.samefile(src):
        raise CheckpointError(f'{dst} is the source itself; choose another destination')


def _read(src: str, trust: bool) -> Any:
    if not trust:
        return read_checkpoint(src)
    if '://' in src:
        check_address(src)
        raise CheckpointError(
            f'checkpoint {src} is an address, and only a local file can be trusted (--trust). '
            'Download it, and name its path'
        )
    return load_checkpoint_file(src, trust)


def _told(checkpoint: Any, state: Mapping[str, Tensor], source: str) -> Recorded:
    """What the file says about its shift patterns: its records, else the patterns themselves."""
    told = read_records(checkpoint, source) or Recorded('the file')
    if None in (told.big_kernels, told.num_reps) and any('.pattern.' in key for key in state):
        stored = read_network(state, source, told)
        told = replace(told, big_kernels=stored.big_kernels, num_reps=stored.num_reps)
    return told


def _other_settings(
    recorded: Mapping[str, Any], state: Mapping[str, Tensor], source: str
) -> dict[str, Any]:
    """Settings that only the record of a file tells, as far as it does.

    Raises:
        CheckpointError: If it names a norm that is not known here.
    """
    found = {key: recorded[key] for key in _RECORD_ONLY if recorded.get(key) is not None}
    if not any(map(_LAYER_SCALE.match, state)):
        found['layer_scale_init_value'] = 0.0
    kind = found['norm_cfg'].get('type') if isinstance(found.get('norm_cfg'), dict) else None
    if isinstance(kind, str) and MODELS.get(kind) is None:  # a class by its name
        if not hasattr(nn, kind):
            raise CheckpointError(
                f'{source}: its record names the norm {kind!r}, which no registry has: call '
                'mmsw.apis.convert_checkpoint where the code that registers it is imported'
            )
        found['norm_cfg'] = {**found['norm_cfg'], 'type': getattr(nn, kind)}
    return found


def _outputs(recorded: Mapping[str, Any], shape: NetworkShape | SLaKShape) -> tuple[int, ...]:
    """Stages whose maps the network returns: those of the record, else all that the file has."""
    told = recorded.get('out_indices')
    stages = range(len(shape.depths))
    fits = isinstance(told, (list, tuple)) and all(stage in stages for stage in told)
    return tuple(told) if fits and stages[-1] in told else tuple(stages)


def _all_stages(
    recorded: Mapping[str, Any], shape: NetworkShape | SLaKShape
) -> dict[str, list[int]]:
    """All stages; those that the file lacks as its record has them, else as published networks."""
    depths, dims = list(shape.depths), list(shape.dims)
    told = recorded.get('arch')
    if isinstance(told, Mapping) and all(
        isinstance(told.get(name), (list, tuple)) and list(told[name])[: len(own)] == own
        for name, own in (('depths', depths), ('dims', dims))
    ):
        return dict(depths=list(told['depths']), dims=list(told['dims']))
    while len(depths) < _NUM_STAGES:
        depths.append(depths[0])
        dims.append(2 * dims[-1])
    return dict(depths=depths, dims=dims)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _image_channels(state: Mapping[str, Tensor]) -> int:
    stem = state.get(_STEM)
    return _IMAGE_CHANNELS if stem is None or stem.ndim < 2 else stem.shape[1]


def _shift_wise_settings(
    shape: NetworkShape, told: Recorded, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of the operator: what was asked for, else what the file tells, else as published."""
    return dict(
        version=shape.version,
        big_kernels=list(_first(asked['big_kernels'], told.big_kernels, PUBLISHED_KERNELS)),
        small_kernel=shape.small_kernel,
        ghost_ratio=_first(asked['ghost_ratio'], told.ghost_ratio, _PUBLISHED_GHOST_RATIO),
        num_paths=shape.num_paths,
        num_reps=_first(asked['num_reps'], told.num_reps, PUBLISHED_REPS),
    )


def _operator_options(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Options of the operator that are not as published; only files of this project have any.

    Raises:
        CheckpointError: If they cannot be read.
    """
    found = [state[key] for key in state if key.endswith('.shift_wise.variant.options')]
    try:
        return VariantOptions.of_tensor(found[0]).changed() if found else {}
    except ValueError as error:
        raise CheckpointError(
            f'{source}: the options of its operator cannot be read: {error}'
        ) from error


def _slak_settings(
    shape: SLaKShape, recorded: Mapping[str, Any], asked: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Settings of a SLaK network, which its tensors tell, but for stages that it lacks.

    Raises:
        CheckpointError: If something else was asked for.
    """
    kernels = asked['big_kernels']
    if kernels is not None and tuple(kernels)[: len(shape.big_kernels)] != shape.big_kernels:
        raise CheckpointError(
            f'{source} holds a SLaK network with large kernels of {shape.big_kernels}, not of '
            f'{tuple(kernels)}: leave --big-kernels out'
        )
    foreign = [name for name in ('ghost_ratio', 'num_reps') if asked[name] is not None]
    if foreign:
        raise CheckpointError(
            f'{source} holds a SLaK network, which has no {" and no ".join(foreign)}: leave '
            f'{" and ".join("--" + name.replace("_", "-") for name in foreign)} out'
        )
    missing = _NUM_STAGES - len(shape.big_kernels)
    told = recorded.get('big_kernels')
    whole = kernels or (told if isinstance(told, (list, tuple)) and len(told) == 4 else None)
    rest = list(whole or [*shape.big_kernels, *[shape.big_kernels[-1]] * missing])
    return dict(
        width_factor=1.0,
        big_kernels=[*shape.big_kernels, *rest[len(shape.big_kernels) :]],
        small_kernel=shape.small_kernel,
        decomposed=shape.decomposed,
    )


def _build_slak(settings: dict[str, Any], source: str) -> SLaK:
    try:
        return SLaK(**settings)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f'{source}: no SLaK network can be built: {error}') from error


def _build(settings: dict[str, Any], source: str) -> ShiftWiseNet:
    try:
        return ShiftWiseNet(**settings)
    except (KeyError, TypeError, ValueError) as error:
        given = ', '.join(f'{key}={settings[key]!r}' for key in _TOLD)
        raise CheckpointError(
            f'{source}: no network can be built with {given}: {error}. Say what the file does not '
            'say right: --big-kernels, --ghost-ratio, --num-reps'
        ) from error


def convert_checkpoint(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    trust: bool = False,
    big_kernels: Sequence[int] | None = None,
    ghost_ratio: float | None = None,
    num_reps: int | None = None,
    prefix: str | None = None,
) -> ConversionReport:
    """Write the backbone (and classifier) of a checkpoint in this project's form.

    The written file names its architecture, and holds the masks, the shift patterns and the channel
    order, so it depends on no random generator any more. What is exactly zero is pruned in it.
    A file of a SLaK network tells everything itself, and has masks beside whatever has zeros.
    Where the file lacks the last stages, the written architecture has some that nobody builds.

    Args:
        src: Published file, or one of this project, or its address.
        dst: File to write; replaced if it exists.
        trust: Unpickle whatever ``src`` asks for, see :func:`mmsw.checkpoint.load_checkpoint_file`;
            for a local file only.
        big_kernels: Focus length per stage; ``None``: what the file says (its meta data, its
            training arguments or its shift patterns), else 51, 49, 47, 13.
        ghost_ratio: Share of channels that bypass the operator; ``None``: what the file says, else
            0.23.
        num_reps: Repetitions of the shift pattern; ``None``: what the file says, else 4.
        prefix: What precedes the backbone's names in the file; ``None``: it is looked for.

    Returns:
        What was used, left and found.

    Raises:
        CheckpointError: If the file cannot be read, does not fit the network it seems to hold, or
            the new one cannot be written.
    """
    src, dst = os.fspath(src), Path(dst)
    _check_destination(src, dst)
    checkpoint = _read(src, trust)
    state = to_state_dict(checkpoint, src, prefix)
    layout = layout_of(state)
    shape = layout.shape.of(state, src)
    recorded = recorded_arguments(checkpoint, src) or {}
    settings = dict(
        _other_settings(recorded, state, src),
        arch=_all_stages(recorded, shape),
        out_indices=_outputs(recorded, shape),
        in_channels=_image_channels(state),
    )
    asked = dict(big_kernels=big_kernels, ghost_ratio=ghost_ratio, num_reps=num_reps)
    if layout is SLAK:
        net = _build_slak({**settings, **_slak_settings(shape, recorded, asked, src)}, src)
    else:
        told = _told(checkpoint, state, src)
        options = _operator_options(state, src)
        net = _build({**settings, **_shift_wise_settings(shape, told, asked), **options}, src)
    # Without the file's records, which arguments may overrule, and without the state of a dynamic
    # run, which the written file has not either: what is zero counts as pruned.
    missing, unused = fill_network(net, state, src)
    head = {key: tensor for key, tensor in state.items() if key.startswith('head.')}
    norms = [key for key in missing if key.startswith('norm')]
    written = {key: tensor for key, tensor in net.state_dict().items() if key not in norms}
    meta = {'source': Path(src).name, 'mmsw': network_record(net)}
    try:
        save_checkpoint_file({'meta': meta, 'state_dict': {**written, **head}}, dst)
    except OSError as error:
        raise CheckpointError(f'{dst} cannot be written: {error}') from error
    return ConversionReport(
        shape,
        used=[key for key in {**written, **head} if key in state],
        derived=[key for key in missing if key not in norms],
        missing=norms,
        unused=[key for key in unused if key not in head],
        sparsity=report(net),
    )
