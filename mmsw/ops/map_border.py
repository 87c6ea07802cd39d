"""What changes at the border of a map where the small convolutions keep its size.

With ``padding = N - 1`` ("full") the small convolutions reach beyond the map, and a shifted read
finds there what their kernels still see of it. With ``padding = N // 2`` ("same") it finds zero. In
the cross form this is one rule: a block of an arm whose centre lies outside of the map contributes
nothing, where otherwise it contributes those of its taps that lie inside.

So the two differ only where a block straddles the border, and only by what the outermost ``N // 2``
rows (columns) of the map give it. That is a small matrix product per channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pattern_tables import num_groups, slot_centre


class Straddling(NamedTuple):
    """Which taps of an arm belong to blocks that straddle one end of a map.

    Rows count from that end. Row ``y`` of the output reads row ``u < N // 2`` of the map by tap
    ``taps[y, u]``, and ``kept[y, u]`` says whether the block of this tap has its centre outside.
    """

    taps: Tensor
    kept: Tensor


def leave_out_tall(out: Tensor, x: Tensor, arm: Tensor, big_kernel: int) -> Tensor:
    """Take from the output of a tall arm what its blocks with a centre outside of the map gave.

    Args:
        out: ``[B, C, H, W]``: depthwise convolution of the map with the arm, zeros around the map.
        x: The map ``[B, C, H, W]``.
        arm: ``[C, taps, N]``, whole (not cropped to the map).
        big_kernel: Focus length M that the blocks of the arm cover.

    Returns:
        ``[B, C, H, W]``; differentiable to any order.
    """
    for part, last in _straddled(x, arm, big_kernel):
        rest = x.shape[2] - part.shape[2]  # or cut where that is negative
        out = out - F.pad(part, (0, 0, rest, 0) if last else (0, 0, 0, rest)).to(out.dtype)
    return out


def leave_out_wide(out: Tensor, x: Tensor, arm: Tensor, big_kernel: int) -> Tensor:
    """The same for a wide arm, stored transposed as a tall one: ``[C, taps, N]``."""
    for part, last in _straddled(x.transpose(2, 3), arm, big_kernel):
        rest = x.shape[3] - part.shape[2]
        part = part.transpose(2, 3)
        out = out - F.pad(part, (rest, 0) if last else (0, rest)).to(out.dtype)
    return out


def _straddled(x: Tensor, arm: Tensor, big_kernel: int) -> Iterator[tuple[Tensor, bool]]:
    """What straddling blocks give to the first rows, or the last ones, ``[B, C, rows, W]``."""
    side = arm.shape[2]
    edge = side // 2
    for last in (False, True):
        found = _straddling(big_kernel, side, arm.shape[1], last, arm.device)
        if not found.taps.numel():
            continue
        rows = x[:, :, -edge:].flip(2) if last else x[:, :, :edge]
        taps, kept = found.taps[:, : rows.shape[2]], found.kept[:, : rows.shape[2]]
        kernel = arm[:, taps] * kept.unsqueeze(2).to(arm.dtype)  # [C, length, rows, N]
        windows = F.pad(rows, (edge, edge)).unfold(3, side, 1)  # [B, C, rows, W, N]
        part = torch.einsum('bcuwk,cyuk->bcyw', windows, kernel)
        yield part.flip(2) if last else part, last


def _straddling(
    big_kernel: int, small_kernel: int, num_taps: int, last: bool, device: torch.device
) -> Straddling:
    edge, groups = small_kernel // 2, num_groups(big_kernel, small_kernel)
    nearest, farthest = (slot_centre(slot, big_kernel, small_kernel) for slot in (0, groups - 1))
    length = max(farthest if last else -nearest, 0) if edge else 0
    rows = torch.arange(length, device=device).unsqueeze(1)
    offset = torch.arange(edge, device=device) - rows  # of the tap, away from the centre
    if last:
        offset = -offset
    slot = torch.div(offset - nearest + edge, small_kernel, rounding_mode='floor')
    centre = slot_centre(slot, big_kernel, small_kernel)
    outside = centre > rows if last else centre < -rows
    return Straddling((offset + num_taps // 2).clamp(0, num_taps - 1), outside)
