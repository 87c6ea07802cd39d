"""Constants that tell an output from where it was read: one per small kernel and repetition.

Each shifted read that lies inside the output of the small convolutions brings its constant along.
Summed up, they are a map per channel that depends on the column alone (horizontal arm), on the row
alone (vertical arm), or on neither (identity, but for the spread one). Away from the border it is
one number, as a bias is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .pattern_tables import PatternTables, conv_margin, counts, num_groups, shift_slot, slot_centre

_BASE = 10000.0


class PositionSums(NamedTuple):
    """Constants summed over the repetitions, by the slot that they are read through.

    Attributes:
        h: Horizontal arm, ``[C, nk]``.
        v: Vertical arm, ``[C, nk]``.
        i: Identity, ``[C]``.
    """

    h: Tensor
    v: Tensor
    i: Tensor


def sinusoids(features: int, num_reps: int) -> Tensor:
    """Sinusoids of base 10000 over the repetitions, float32 ``[features, R]``.

    Feature ``f`` of repetition ``r`` is the sine (even ``f``) or cosine (odd ``f``) of
    ``r / 10000 ** (2 * (f // 2) / features)``.
    """
    feature = torch.arange(features, dtype=torch.float64, device='cpu').unsqueeze(1)
    rate = _BASE ** (-2 * torch.div(feature, 2, rounding_mode='floor') / features)
    angle = rate * torch.arange(num_reps, dtype=torch.float64, device='cpu')
    return torch.where(feature % 2 == 0, angle.sin(), angle.cos()).to(torch.get_default_dtype())


def sum_positions(h: Tensor, v: Tensor, i: Tensor, pattern: PatternTables) -> PositionSums:
    """Sum constants over the repetitions.

    Args:
        h: Of the horizontal arm, ``[C * nk, R]``.
        v: Of the vertical arm, likewise.
        i: Of the identity, ``[C, R]``.
        pattern: Which slot each small kernel has in each repetition.
    """
    channels, reps, groups = counts(pattern)
    shift = pattern.shift_hv.to(torch.int64)
    slot = shift_slot(shift, pattern.big_kernel, pattern.small_kernel)
    slot = slot.view(channels, groups, 2, reps).permute(2, 0, 1, 3).flatten(2)
    constants = torch.stack([h, v]).view(2, channels, groups * reps)
    sums = constants.new_zeros(2, channels, groups).scatter_add(2, slot, constants)
    return PositionSums(sums[0], sums[1], i.sum(1))


def position_maps(
    sums: PositionSums,
    size: tuple[int, int],
    big_kernel: int,
    small_kernel: int,
    margin: int | None = None,
    spread: tuple[int, ...] = (0,),
) -> tuple[Tensor, Tensor, Tensor]:
    """Constant maps of the three outputs, ready to be broadcast.

    Args:
        sums: The constants; the identity's may be ``[C, 1]``.
        size: ``(H, W)`` of the map.
        big_kernel: Focus length M.
        small_kernel: Side N.
        margin: By how much the output of the small convolutions exceeds the map on each side.
        spread: How far, in pixels, the identity reads in either direction: every pair of these.

    Returns:
        ``[C, 1, W]``, ``[C, H, 1]`` and ``[C, H, W]``.
    """
    margin = conv_margin(small_kernel) if margin is None else margin
    slots = torch.arange(num_groups(big_kernel, small_kernel), device=sums.h.device)
    centres = slot_centre(slots, big_kernel, small_kernel)
    moves = torch.tensor(spread, device=sums.h.device)
    (rows, columns), (few_rows, few_columns) = (
        [_inside(reads, length, margin).to(sums.h.dtype) for length in size]
        for reads in (centres, moves)
    )
    return (
        (sums.h @ columns).unsqueeze(1),
        (sums.v @ rows).unsqueeze(2),
        sums.i.view(-1, 1, 1) * (few_rows.sum(0).unsqueeze(1) * few_columns.sum(0)),
    )


def _inside(offset: Tensor, length: int, margin: int) -> Tensor:
    """Whether a read this far from each position lies inside, ``[offsets, length]``."""
    read = torch.arange(length, device=offset.device) + offset.unsqueeze(1)
    return (read >= -margin) & (read < length + margin)
