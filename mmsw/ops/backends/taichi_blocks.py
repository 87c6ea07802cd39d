"""Kernels of one output as blocks of taps, and maps with room around them, for the Taichi kernels.

A kernel is a row or a column of N x N blocks. Each is cut into parts of 5 x 5, 3 x 3 or 1 x 1 taps,
the sides that the Taichi kernels are unrolled for. Per channel a list names the parts that are
visited: not those of zeros, nor those that no position of the map reaches.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .taichi_runtime import run_kernel, running_kernels

_SIDES = (5, 3, 1)  # of the parts, the largest that divides N is taken
_TILE_ROWS = 4


class Arm(NamedTuple):
    """A depthwise kernel as blocks, one after the other along the columns or the rows.

    Attributes:
        blocks: ``[C, slots, N, N]`` (rows, columns), in the dtype that is computed in.
        first: Offset of the first tap along the arm; 0 is the centre.
        wide: Whether the blocks follow each other along the columns; otherwise along the rows.
        aside: How far the blocks lie from the middle, across the arm.
    """

    blocks: Tensor
    first: int
    wide: bool
    aside: int = 0

    @classmethod
    def from_taps(cls, taps: Tensor, wide: bool, before: int, slots: int) -> Arm:
        """Cut an arm ``[C, taps, N]``, stored transposed if ``wide``, into blocks.

        Args:
            taps: The arm; its middle tap is the centre.
            wide: Whether the taps run along the columns of the map.
            before: Taps of zeros put before it, or, if negative, taps cut off.
            slots: Blocks to cut it into.
        """
        channels, length, n = taps.shape
        blocks = F.pad(taps, (0, 0, before, slots * n - length - before))
        blocks = blocks.reshape(channels, slots, n, n)
        return cls(blocks.transpose(2, 3) if wide else blocks, -(length // 2) - before, wide)

    @property
    def flipped(self) -> Arm:
        """The kernel turned around both axes."""
        _, slots, n, _ = self.blocks.shape
        turned = self.blocks.flip(1, 2, 3)
        return Arm(turned, 1 - self.first - slots * n, self.wide, -self.aside)

    def margins(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns around a map that its taps read."""
        _, slots, n, _ = self.blocks.shape
        reach = max(-self.first, self.first + slots * n - 1)
        across = n // 2 + abs(self.aside)
        if self.wide:
            return across, min(reach, width + n)
        return min(reach, height + n), across

    def parts(self) -> Tensor:
        """``[C, slots * parts ** 2, side, side]``, contiguous."""
        channels, slots, n, _ = self.blocks.shape
        side = _side(n)
        cut = self.blocks.reshape(channels, slots, n // side, side, n // side, side)
        return cut.transpose(3, 4).reshape(channels, -1, side, side).contiguous()

    def join(self, parts: Tensor) -> Tensor:
        """Inverse of :meth:`parts`."""
        channels, slots, n, _ = self.blocks.shape
        side = _side(n)
        cut = parts.view(channels, slots, n // side, n // side, side, side)
        return cut.transpose(3, 4).reshape(channels, slots, n, n)

    def places(self, padded: PaddedMap) -> tuple[Tensor, Tensor]:
        """Offsets of the parts in the padded map, int32, and which of them reach the map, bool."""
        _, slots, n, _ = self.blocks.shape
        length = padded.width if self.wide else padded.height
        inside, offsets = [], []
        for tap in range(self.first, self.first + slots * n, n):
            reaches = -length < tap + n - 1 and tap < length
            across = self.aside - n // 2
            row, column = (across, tap) if self.wide else (tap, across)
            for down in range(row, row + n, _side(n)):
                for right in range(column, column + n, _side(n)):
                    inside.append(reaches)
                    offsets += [padded.above + down, padded.left + right] if reaches else [0, 0]
        device = padded.values.device
        return (
            torch.tensor(offsets, dtype=torch.int32, device=device),
            torch.tensor(inside, device=device),
        )


class PaddedMap(NamedTuple):
    """A map with zeros around it, its size rounded up to whole tiles.

    Attributes:
        values: ``[B, C, rows, columns]``.
        height: Rows of the map.
        width: Columns of the map.
        above: Rows of zeros above it.
        left: Columns of zeros left of it.
    """

    values: Tensor
    height: int
    width: int
    above: int
    left: int

    @classmethod
    def around(cls, x: Tensor, arms: list[Arm]) -> PaddedMap:
        """``x`` with the room that the taps of the arms read."""
        height, width = x.shape[2:]
        margins = [arm.margins(height, width) for arm in arms]
        above, left = (max(sides) for sides in zip(*margins, strict=True))
        right, below = left + -width % tile_columns(width), above + -height % _TILE_ROWS
        return cls(F.pad(x.contiguous(), (left, right, above, below)), height, width, above, left)


def correlate(kernels: ModuleType, arm: Arm, padded: PaddedMap, out: Tensor, add: bool) -> None:
    """Write or add to ``out``, of :func:`new_map`, the map correlated with the arm."""
    weight = arm.parts()
    channels, slots, side, _ = weight.shape
    offsets, inside = arm.places(padded)
    visited = (weight != 0).flatten(2).any(2) & inside
    index = torch.arange(slots, device=weight.device).where(visited, slots).sort(1).values
    lists = F.pad(index.masked_fill(index == slots, -1), (0, 1), value=-1)
    kernel = kernels.correlate(taichi_dtype(padded.values), side, tile_columns(padded.width))
    for chunk in chunks(kernels, padded.values):
        run_kernel(
            kernel,
            flat(padded.values[chunk]),
            flat(weight),
            flat(lists.to(torch.int32)),
            offsets,
            flat(out[chunk]),
            out[chunk].shape[0] * channels,
            channels,
            slots,
            *padded[1:],
            int(add),
            1,
        )


def correlate_all(x: Tensor, arms: list[Arm], bias: Tensor | None) -> Tensor:
    """The sum of arms over a map ``[B, C, H, W]`` in one output, which begins with the bias."""
    if not x.numel():
        return x.new_empty(x.shape)
    with running_kernels(x) as kernels:
        padded = PaddedMap.around(work(x), arms)
        out = new_map(padded)
        if bias is not None:
            out.copy_(work(bias).view(-1, 1, 1))
        for index, arm in enumerate(arms):
            correlate(kernels, arm, padded, out, add=index > 0 or bias is not None)
    return crop(out, x)


def correlate_grad(kernels: ModuleType, arm: Arm, padded: PaddedMap, grad: Tensor) -> Tensor:
    """Gradient of the blocks of an arm that are not zero; that of the others is left at zero."""
    parts = arm.parts()
    channels, slots, side, _ = parts.shape
    offsets, inside = arm.places(padded)
    wanted = flat(((parts != 0).flatten(2).any(2) & inside).to(torch.int32))
    columns = tile_columns(padded.width)
    grad = F.pad(grad, (0, -padded.width % columns)).contiguous()
    kernel = kernels.correlate_grad(taichi_dtype(padded.values), side, columns)
    total = torch.zeros_like(parts)
    for chunk in chunks(kernels, padded.values):
        lanes = grad.new_empty(*parts.shape, columns)
        run_kernel(
            kernel,
            flat(padded.values[chunk]),
            flat(grad[chunk]),
            wanted,
            offsets,
            flat(lanes),
            grad[chunk].shape[0],
            channels,
            slots,
            *padded[1:],
            1,
        )
        total += lanes.sum(4)
    return arm.join(total)


def new_map(padded: PaddedMap) -> Tensor:
    """An output ``[B, C, H, W]`` whose width is rounded up to whole tiles."""
    width = padded.width + -padded.width % tile_columns(padded.width)
    return padded.values.new_empty(*padded.values.shape[:2], padded.height, width)


def crop(out: Tensor, x: Tensor) -> Tensor:
    """An output of :func:`new_map` in the size and dtype of ``x``, contiguous."""
    return out[..., : x.shape[3]].to(x.dtype).contiguous()


def tile_columns(width: int) -> int:
    """Columns of a tile: 16, or 8 where that rounds the width up by less."""
    return 8 if 0 < width % 16 <= 8 else 16


def chunks(kernels: ModuleType, largest: Tensor) -> list[slice]:
    """The samples of a batch by launches: Taichi's indices are 32-bit.

    Raises:
        ValueError: If one sample is too large.
    """
    sample = largest[0].numel()
    if sample >= kernels.INDEX_LIMIT:
        raise ValueError(
            f'backend "taichi" handles up to {kernels.INDEX_LIMIT} elements per sample, a map of '
            f'shape {tuple(largest.shape[1:])} (padding included) has {sample}; '
            'use a smaller map or another backend'
        )
    step = (kernels.INDEX_LIMIT - 1) // sample
    return [slice(start, start + step) for start in range(0, len(largest), step)]


def flat(tensor: Tensor) -> Tensor:
    """The elements as Taichi takes them."""
    return tensor.contiguous().view(-1)


def work(tensor: Tensor) -> Tensor:
    """What the kernels compute with: no half types, no gradient that Taichi would allocate."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def taichi_dtype(tensor: Tensor) -> object:
    """Taichi's name of float32 or float64."""
    import taichi as ti

    return ti.f64 if tensor.dtype == torch.float64 else ti.f32


def _side(n: int) -> int:
    return next(side for side in _SIDES if n % side == 0)
