"""What a checkpoint's shift-wise layers keep, and where each of their small kernels lies."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmsw.checkpoint import NetworkShape, Recorded
from mmsw.checkpoint.shape import stored_kernels
from mmsw.errors import CheckpointError
from mmsw.ops import ShiftPattern
from mmsw.ops.pattern_tables import num_groups
from mmsw.sparsity import Density

PUBLISHED_KERNELS = (51, 49, 47, 13)
PUBLISHED_REPS = 4
_BUFFER = re.compile(
    r'\.(mask|channel_order|running_\w+|num_batches_tracked)$|\.pattern\.'
    r'|\.variant\.(?!weight_)'
)
_OUTSIDE = re.compile(r'^head\.|^norm\d\.')


@dataclass(frozen=True)
class ShiftWiseLayer:
    """A shift-wise layer as far as pruning matters.

    Attributes:
        stage: Number of its stage, from 0.
        block: Number of its block in the stage, from 0.
        masks: Which weights each path keeps, boolean ``[P, C * nk, N, N]``.
        pattern: Where the ``C * nk`` small kernels are placed.
        pointwise: Weights of the two pointwise layers of its block, which are never pruned.
    """

    stage: int
    block: int
    masks: Tensor = field(repr=False)
    pattern: ShiftPattern = field(repr=False)
    pointwise: int = 0

    @property
    def name(self) -> str:
        """Short name, ``STAGE.BLOCK``."""
        return f'{self.stage}.{self.block}'

    @property
    def filters(self) -> Tensor:
        """Which small kernels keep a weight in each path, boolean ``[P, C * nk]``."""
        return self.masks.flatten(2).any(2)

    @property
    def weights(self) -> Tensor:
        """Which weights are kept, boolean ``[P * C * nk * N * N]``."""
        return self.masks.flatten()

    @property
    def paths(self) -> tuple[Density, ...]:
        """What each path keeps, filters and weights."""
        return tuple(
            Density(int(kept.sum()), kept.numel(), int(mask.sum()), mask.numel())
            for mask, kept in zip(self.masks, self.filters, strict=True)
        )


@dataclass(frozen=True)
class MaskedNetwork:
    """The shift-wise layers of a network, or the large kernels of SLaK.

    Attributes:
        source: Where it comes from.
        shape: What its tensors tell.
        layers: In the order in which they run; of SLaK,
            :class:`~mmsw.analysis.sparsity.slak.SLaKLayer`.
        big_kernels: Focus length M per stage, in positions of the stage's map.
        num_reps: Repetitions R of the shift pattern.
        notes: For the reader: where focus lengths and repetitions are known from.
        parameters: All parameters of the backbone; output norms and classifier do not count.
    """

    source: str
    shape: NetworkShape
    layers: tuple[ShiftWiseLayer, ...] = field(repr=False)
    big_kernels: tuple[int, ...]
    num_reps: int
    notes: tuple[str, ...]
    parameters: int


def read_network(
    state: Mapping[str, Tensor], source: str, recorded: Recorded | None = None
) -> MaskedNetwork:
    """Find the shift-wise layers in a state dict.

    Patterns that the state dict holds are taken as they are. Without them they are drawn as for
    every published network, with the focus lengths and repetitions that ``recorded`` tells, else
    with assumed ones; ``notes`` of the result says so.

    Args:
        state: State dict of a backbone in this project's names and without prefix, masks included,
            as :func:`mmsw.checkpoint.to_state_dict` returns it.
        source: Its name, for messages.
        recorded: What is known besides the tensors.

    Returns:
        The layers.

    Raises:
        CheckpointError: If tensors are missing, do not fit each other, or contradict ``recorded``.
    """
    recorded = recorded or Recorded('nothing')
    shape = NetworkShape.of(state, source)
    try:
        return _read(state, source, shape, recorded)
    except KeyError as error:
        raise CheckpointError(f'{source} is incomplete: it has no tensor {error}') from error


def _read(
    state: Mapping[str, Tensor], source: str, shape: NetworkShape, recorded: Recorded
) -> MaskedNetwork:
    for stage, (filters, channels) in enumerate(
        zip(shape.num_filters, shape.num_active, strict=True)
    ):
        if not filters or filters % channels:
            raise CheckpointError(
                f'{source} is damaged: {filters} small kernels in stage {stage} are no multiple of '
                f'its {channels} channels'
            )
    first = [f'stages.{stage}.0.shift_wise.pattern.' for stage in range(len(shape.depths))]
    tables = [state.get(f'{prefix}shift_hv') for prefix in first]
    identities = [state.get(f'{prefix}identity_index') for prefix in first]
    stored = all(t is not None and t.numel() and t.ndim == 2 for t in [*tables, *identities])
    if stored:
        big_kernels = tuple(
            _stored_kernel(state, prefix, shape, stage, recorded)
            for stage, prefix in enumerate(first)
        )
        num_reps = identities[0].shape[1]
        notes = ['big kernels and repetitions as in the stored shift patterns']
    else:
        big_kernels, kernel_note = _told_kernels(shape, source, recorded)
        num_reps, reps_note = _told_reps(source, recorded)
        notes = [kernel_note, reps_note]
    if any('.variant.' in key for key in state):
        notes.append(
            'the operator has options that are not as published; the multiply-adds are those '
            'without them (tools/get_flops.py counts them)'
        )
    layers = []
    for stage, depth in enumerate(shape.depths):
        for block in range(depth):
            try:
                layer = _layer(state, shape, stage, block, big_kernels[stage], num_reps, stored)
            except ValueError as error:
                raise CheckpointError(
                    f'{source}: stages.{stage}.{block}.shift_wise is damaged: {error}'
                ) from error
            layers.append(layer)
    return MaskedNetwork(
        source,
        shape,
        tuple(layers),
        big_kernels,
        num_reps,
        tuple(notes),
        counted_parameters(state),
    )


def counted_parameters(state: Mapping[str, Tensor]) -> int:
    """Parameters of a backbone, without output norms and classifier."""
    counted = [key for key in state if not _BUFFER.search(key) and not _OUTSIDE.search(key)]
    return sum(state[key].numel() for key in counted)


def _layer(
    state: Mapping[str, Tensor],
    shape: NetworkShape,
    stage: int,
    block: int,
    big_kernel: int,
    num_reps: int,
    stored: bool,
) -> ShiftWiseLayer:
    prefix = f'stages.{stage}.{block}.'
    n, filters = shape.small_kernel, shape.num_filters[stage]
    masks = []
    for path in range(shape.num_paths):
        for name in ('weight', 'mask'):
            key = f'{prefix}shift_wise.paths.{path}.{name}'
            if tuple(state[key].shape) != (filters, 1, n, n):
                raise ValueError(
                    f'paths.{path}.{name} is {list(state[key].shape)} instead of '
                    f'{[filters, 1, n, n]}, as in the first layer of the stage'
                )
        masks.append(state[key].bool().squeeze(1))
    if stored:
        tables = (f'{prefix}shift_wise.pattern.{name}' for name in ('shift_hv', 'identity_index'))
        pattern = ShiftPattern(big_kernel, n, *(state[key] for key in tables))
    else:
        pattern = _drawn(big_kernel, n, shape.num_active[stage], num_reps)
    if pattern.channels != shape.num_active[stage]:
        raise ValueError(
            f'its pattern is for {pattern.channels} channels instead of {shape.num_active[stage]}'
        )
    pointwise = sum(state[f'{prefix}pointwise_conv{i}.weight'].numel() for i in (1, 2))
    return ShiftWiseLayer(stage, block, torch.stack(masks), pattern, pointwise)


@functools.lru_cache(maxsize=16)
def _drawn(big_kernel: int, small_kernel: int, channels: int, num_reps: int) -> ShiftPattern:
    return ShiftPattern.draw(big_kernel, small_kernel, channels, num_reps)


def _groups(shape: NetworkShape, stage: int) -> int:
    return shape.num_filters[stage] // shape.num_active[stage]


def _fits(big_kernel: int, shape: NetworkShape, stage: int) -> bool:
    positive = isinstance(big_kernel, int) and big_kernel > 0
    return positive and num_groups(big_kernel, shape.small_kernel) == _groups(shape, stage)


def _longest(shape: NetworkShape, stage: int) -> int:
    longest = _groups(shape, stage) * shape.small_kernel
    odd = longest - 1 + longest % 2
    return odd if _fits(odd, shape, stage) else longest


def _stored_kernel(
    state: Mapping[str, Tensor], pattern: str, shape: NetworkShape, stage: int, recorded: Recorded
) -> int:
    """Where the tables leave two lengths, the recorded one counts, else the odd one."""
    found = stored_kernels(state, pattern, shape.small_kernel)
    candidates = [m for m in reversed(found) if m > 0 and _fits(m, shape, stage)]
    if not candidates:
        return found[-1]  # the pattern's own check says what is wrong
    known = recorded.big_kernels
    if known is not None and stage < len(known) and known[stage] in candidates:
        return known[stage]
    return candidates[0]


def _told_kernels(
    shape: NetworkShape, source: str, recorded: Recorded
) -> tuple[tuple[int, ...], str]:
    stages = range(len(shape.depths))
    if recorded.big_kernels is not None:
        told = tuple(recorded.big_kernels)
        if len(told) != len(stages) or not all(_fits(told[s], shape, s) for s in stages):
            raise CheckpointError(
                f'{source}: {recorded.origin} say big kernels {told}, which do not fit its tensors '
                f'({shape})'
            )
        return told, f'big kernels as in {recorded.origin}'
    if len(stages) == len(PUBLISHED_KERNELS) and all(
        _fits(PUBLISHED_KERNELS[stage], shape, stage) for stage in stages
    ):
        return PUBLISHED_KERNELS, (
            'ASSUMED: the published big kernels, which the number of filters allows; others of '
            'that number move the offsets by a pixel or two and change nothing else'
        )
    return tuple(_longest(shape, stage) for stage in stages), (
        'ASSUMED: the longest odd big kernels that the number of filters allows; others of that '
        'number move the offsets by a pixel or two and change nothing else'
    )


def _told_reps(source: str, recorded: Recorded) -> tuple[int, str]:
    if recorded.num_reps is None:
        return PUBLISHED_REPS, (
            f'ASSUMED: R = {PUBLISHED_REPS} repetitions, as published; neither the tensors nor '
            'training arguments tell; offsets and work depend on it (--config says otherwise)'
        )
    if not isinstance(recorded.num_reps, int) or recorded.num_reps < 1:
        raise CheckpointError(
            f'{source}: {recorded.origin} say {recorded.num_reps!r} repetitions, expected 1 or more'
        )
    return recorded.num_reps, f'repetitions as in {recorded.origin}'
