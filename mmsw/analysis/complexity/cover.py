"""How much of what the small convolutions compute the shifts use, by layer and map size.

A shift reads a window of the size of the map from the output ``Y`` of a small convolution, moved by
its slot, and what lies outside of ``Y`` is zero. Far slots of a long arm on a small map read little
or nothing. All counts are exact: overlaps of intervals, no convolution is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.ops import ShiftPattern
from mmsw.ops.pattern_tables import check_kernel_sizes, conv_margin, num_groups, positive
from mmsw.summed import Summed

from ..stages import map_sizes, stage_layers


def slot_overlaps(big_kernel: int, small_kernel: int, size: int) -> list[int]:
    """Positions along an arm that each slot reads inside of ``Y``, of ``size`` that it asks for.

    Slot ``i`` asks for positions ``-pad[i] ... size - 1 - pad[i]`` of the ``size + 2e`` that ``Y``
    has, with ``pad[i] = M // 2 - i * N - (N - 1)`` and ``e = N - 1 - N // 2``.

    Args:
        big_kernel: Focus length M.
        small_kernel: Side N.
        size: Rows or columns of the map, along the arm.

    Returns:
        One number per slot.

    Raises:
        ValueError: If a size is not a positive whole number, N is even, or N exceeds M.
    """
    big, small = check_kernel_sizes(big_kernel, small_kernel)
    (size,) = positive(size=size)
    end = size + 2 * conv_margin(small)
    starts = (slot * small + small - 1 - big // 2 for slot in range(num_groups(big, small)))
    return [max(0, min(end, start + size) - max(0, start)) for start in starts]


def used_positions(pattern: ShiftPattern, height: int, width: int) -> Tensor:
    """Positions of each group's output that a shift of any repetition and branch reads.

    Args:
        pattern: Shifts of C channels.
        height: Rows H of the map.
        width: Columns W of the map.

    Returns:
        int64 ``[C * nk]``, of ``(H + 2e) * (W + 2e)`` positions each.
    """
    reps, margin = pattern.num_reps, pattern.margin
    shift = pattern.shift_hv.cpu().long()
    across = _read(shift[:, :reps], width, margin)
    down = _read(shift[:, reps:], height, margin)
    # a branch along the rows reads the rows of the map, and the other one its columns
    inner_across, inner_down = (
        table[:, margin : margin + size].sum(1) for table, size in ((across, width), (down, height))
    )
    used = across.sum(1) * height + down.sum(1) * width - inner_across * inner_down
    in_identity = torch.zeros(len(shift), dtype=torch.bool)
    in_identity[pattern.identity_index.cpu().flatten()] = True
    return used + in_identity * (width - inner_across) * (height - inner_down)


def _read(shift: Tensor, size: int, margin: int) -> Tensor:
    """Which positions along one direction any repetition reads, boolean ``[C * nk, size + 2e]``."""
    places = torch.arange(size + 2 * margin)
    read = torch.zeros(len(shift), len(places), dtype=torch.bool)
    for start in -shift.t()[..., None]:
        read |= (places >= start) & (places < start + size)
    return read


@dataclass(frozen=True)
class Cover(Summed):
    """What the shifts of a layer, or of several, use of the small convolutions' outputs.

    Attributes:
        outputs: Outputs of the small convolutions, ``C * nk * (H + 2e) * (W + 2e)``, one path, one
            image.
        used: Of these, what some shift reads.
        reads: Reads that lie inside of the outputs, all repetitions and all three branches.
        asked: Reads in all, ``R * (2 * nk + 1) * C * H * W``; the others are zero.
        shifts: Shifts, ``R * (2 * nk + 1) * C``.
        offered: Outputs that each shift might have read, summed over the shifts.
        filters: Small kernels.
        idle_filters: Of these, those of whose output nothing is read.
    """

    outputs: int = 0
    used: int = 0
    reads: int = 0
    asked: int = 0
    shifts: int = 0
    offered: int = 0
    filters: int = 0
    idle_filters: int = 0

    @property
    def used_share(self) -> float:
        """Share of the outputs that some shift reads."""
        return self.used / self.outputs if self.outputs else 1.0

    @property
    def share_per_shift(self) -> float:
        """Share of a filter's outputs that one shift reads, mean over slots and branches."""
        return self.reads / self.offered if self.offered else 1.0

    @property
    def inside_share(self) -> float:
        """Share of the reads that lie inside of the outputs; the others add zero."""
        return self.reads / self.asked if self.asked else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; counts as they are, shares beside them."""
        return dict(
            vars(self),
            used_share=self.used_share,
            share_per_shift=self.share_per_shift,
            inside_share=self.inside_share,
        )


def layer_cover(pattern: ShiftPattern, height: int, width: int) -> Cover:
    """Work out what the shifts of one layer use on a map.

    Args:
        pattern: Shifts of C channels.
        height: Rows H of the map.
        width: Columns W of the map.

    Returns:
        The counts. ``used`` and ``reads`` equal the number of non-zero elements and the sum of
        the gradient of :func:`mmsw.ops.shift_add` if every gradient that reaches it is one.

    Raises:
        ValueError: If a size is not a positive whole number.
    """
    height, width = positive(height=height, width=width)
    big, small, margin = pattern.big_kernel, pattern.small_kernel, pattern.margin
    positions = (height + 2 * margin) * (width + 2 * margin)
    channels, reps, groups = pattern.channels, pattern.num_reps, pattern.num_groups
    used = used_positions(pattern, height, width)
    across = height * sum(slot_overlaps(big, small, width))
    down = width * sum(slot_overlaps(big, small, height))
    shifts = reps * channels * (2 * groups + 1)
    return Cover(
        outputs=channels * groups * positions,
        used=int(used.sum()),
        reads=reps * channels * (across + down + height * width),
        asked=shifts * height * width,
        shifts=shifts,
        offered=shifts * positions,
        filters=channels * groups,
        idle_filters=int((used == 0).sum()),
    )


@dataclass(frozen=True)
class StageCover:
    """Layers of one stage.

    Attributes:
        stage: Its number, from 0.
        map_size: ``(H, W)`` of its map.
        big_kernel: Focus length M.
        small_kernel: Side N.
        empty_slots: Slots that read nothing on this map, ``(horizontal, vertical)``.
        slots: Slots of an arm, ``nk``.
        layers: One per layer, in the order in which they run.
    """

    stage: int
    map_size: tuple[int, int]
    big_kernel: int
    small_kernel: int
    empty_slots: tuple[int, int]
    slots: int
    layers: tuple[Cover, ...]

    @property
    def total(self) -> Cover:
        """Sum of the layers."""
        return sum(self.layers, Cover())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return dict(
            stage=self.stage,
            map_size=list(self.map_size),
            big_kernel=self.big_kernel,
            small_kernel=self.small_kernel,
            slots=self.slots,
            empty_slots=list(self.empty_slots),
            overlaps_horizontal=slot_overlaps(self.big_kernel, self.small_kernel, self.map_size[1]),
            overlaps_vertical=slot_overlaps(self.big_kernel, self.small_kernel, self.map_size[0]),
            total=self.total.to_dict(),
            layers=[layer.to_dict() for layer in self.layers],
        )


def network_cover(net: ShiftWiseNet, shape: Sequence[int]) -> tuple[StageCover, ...]:
    """Work out what the shifts of each layer of a network use.

    Pruned filters count like the others: their small convolutions are in the network all the same.

    Args:
        net: A network in its training form; a folded one has no shifts.
        shape: ``(H, W)`` of an image in pixels.

    Returns:
        One entry per stage.

    Raises:
        ValueError: If the network is folded, or the shape is not two positive whole numbers.
    """
    sizes = map_sizes(net.version, shape, len(net.stages))
    return tuple(
        _stage(index, layers, size)
        for index, (layers, size) in enumerate(zip(stage_layers(net), sizes, strict=True))
    )


def _stage(index: int, layers: Sequence[ShiftWiseConv2d], size: tuple[int, int]) -> StageCover:
    pattern = layers[0].pattern
    big, small = pattern.big_kernel, pattern.small_kernel
    height, width = size
    empty = tuple(slot_overlaps(big, small, side).count(0) for side in (width, height))
    covers = tuple(_covers((layer.pattern for layer in layers), size))
    return StageCover(index, size, big, small, empty, pattern.num_groups, covers)


def _covers(patterns: Iterable[ShiftPattern], size: tuple[int, int]) -> Iterable[Cover]:
    """Of each layer; layers of one stage mostly share their pattern, which is looked at once."""
    last, found = None, Cover()
    for pattern in patterns:
        if last is None or not _equal(pattern, last):
            last, found = pattern, layer_cover(pattern, *size)
        yield found


def _equal(one: ShiftPattern, other: ShiftPattern) -> bool:
    return torch.equal(one.shift_hv, other.shift_hv) and torch.equal(
        one.identity_index, other.identity_index
    )
