"""The five known ways to shift a map, each as the second step of the shift-wise operator.

They exist to be measured against, so each is written to be fast. Every one of them adds up the same
numbers as :func:`mmsw.ops.shift_add`; tables, masks, grids and kernels are built once, beforehand,
as a network would. Four of them work slot by slot: the groups that share a shift, one per channel,
are moved together and added. The one-hot convolution moves all groups of a repetition at once, each
by its own kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsw.ops import ShiftPattern
from mmsw.ops.pattern_tables import shift_slot, slot_shift

Outputs = tuple[Tensor, Tensor, Tensor]
ShiftAdd = Callable[[Tensor], Outputs]
_Move = Callable[[Tensor], Tensor]
_COLUMNS = 3
_ROWS = 2


def slices(pattern: ShiftPattern, height: int, width: int) -> ShiftAdd:
    """Shift by slice indexing, in place; the gradient by the same slices."""
    border = 2 * pattern.margin
    steps = []
    for dim, shift, group in _slots(pattern):
        length = height if dim == _ROWS else width
        first = min(max(0, shift), length)
        last = max(first, min(length, length + border + shift))
        if first < last:
            out = _along(dim, slice(first, last))
            steps.append((dim, out, _along(dim, slice(first - shift, last - shift)), group))
    return lambda conv_out: _Slices.apply(conv_out, pattern, height, width, steps)


def roll(pattern: ShiftPattern, height: int, width: int) -> ShiftAdd:
    """Shift by ``torch.roll``; what comes round the edge is masked."""

    def make(shift: int, dim: int) -> _Move:
        length = height if dim == _ROWS else width
        source = torch.arange(length, device=pattern.shift_hv.device) - shift
        inside = (source >= 0) & (source < length + 2 * pattern.margin)
        mask = inside.float().view(-1, *[1] * (3 - dim))
        return lambda picked: picked.roll(shift, dim).narrow(dim, 0, length) * mask

    return _slot_by_slot(pattern, height, width, make)


def deformable(pattern: ShiftPattern, height: int, width: int) -> ShiftAdd:
    """Shift by a 1x1 deformable convolution of ``mmcv.ops`` whose offsets are constant.

    Raises:
        ImportError: If mmcv was installed without its compiled operators.
    """
    from mmcv.ops import deform_conv2d

    device = pattern.shift_hv.device
    channels = pattern.channels
    ones = torch.ones(channels, 1, 1, 1, device=device)

    def make(shift: int, dim: int) -> _Move:
        border = 2 * pattern.margin
        rows = height + (border if dim == _ROWS else 0)
        columns = width + (border if dim == _COLUMNS else 0)
        offset = torch.zeros(1, 2, rows, columns, device=device)
        offset[:, 0 if dim == _ROWS else 1] = -shift
        length = height if dim == _ROWS else width

        def move(picked: Tensor) -> Tensor:
            offsets = offset.expand(picked.shape[0], -1, -1, -1).contiguous()
            moved = deform_conv2d(picked.contiguous(), offsets, ones, 1, 0, 1, channels, 1)
            return moved.narrow(dim, 0, length)

        return move

    return _slot_by_slot(pattern, height, width, make)


def grid_sample(pattern: ShiftPattern, height: int, width: int) -> ShiftAdd:
    """Shift by ``F.grid_sample``; the nearest position, so that rounding cannot mix neighbours."""
    device = pattern.shift_hv.device

    def make(shift: int, dim: int) -> _Move:
        border = 2 * pattern.margin
        y = torch.arange(height, device=device) - (shift if dim == _ROWS else 0)
        x = torch.arange(width, device=device) - (shift if dim == _COLUMNS else 0)
        source_rows = height + (border if dim == _ROWS else 0)
        source_columns = width + (border if dim == _COLUMNS else 0)
        y = (2 * y + 1) / source_rows - 1
        x = (2 * x + 1) / source_columns - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing='ij')[::-1], dim=2).unsqueeze(0)
        return lambda picked: F.grid_sample(
            picked, grid.expand(picked.shape[0], -1, -1, -1), mode='nearest', align_corners=False
        )

    return _slot_by_slot(pattern, height, width, make)


def one_hot(pattern: ShiftPattern, height: int, width: int) -> ShiftAdd:
    """Shift by depthwise convolutions with one-hot kernels, one per repetition and arm."""
    channels, groups, margin = pattern.channels, pattern.num_groups, pattern.margin
    device = pattern.shift_hv.device
    slot = torch.arange(groups, device=device)
    shifts = slot_shift(slot, pattern.big_kernel, pattern.small_kernel)
    farthest = int(shifts.max())
    taps = farthest - int(shifts.min()) + 1
    # tap k reads position x + k - farthest, and x - shift is wanted
    tap = farthest - pattern.shift_hv.to(torch.int64)
    kernels = [
        F.one_hot(column, taps).float().view(channels * groups, 1, taps, 1)
        for column in tap.unbind(1)
    ]
    identity = _identity(pattern, height, width)

    def along_rows(source: Tensor, kernel: Tensor) -> Tensor:
        # Rows are padded beforehand: oneDNN's weight gradient is wrong where more than 15 rows of
        # padding are asked of the convolution itself (torch 2.13, float32).
        length = source.shape[2] - 2 * margin
        after = taps - 1 - 2 * margin - farthest
        padded = F.pad(source, (0, 0, farthest, after))
        moved = F.conv2d(padded, kernel, groups=channels * groups)
        return moved.view(source.shape[0], channels, groups, length, source.shape[3]).sum(2)

    def along_columns(source: Tensor, kernel: Tensor) -> Tensor:
        if source.device.type == 'cpu':  # oneDNN is far faster for tall kernels than for wide ones
            return along_rows(source.mT, kernel).mT
        padded = F.pad(source, (farthest, taps - 1 - 2 * margin - farthest))
        moved = F.conv2d(padded, kernel.mT, groups=channels * groups)
        return moved.view(source.shape[0], channels, groups, source.shape[2], -1).sum(2)

    def run(conv_out: Tensor) -> Outputs:
        rows = conv_out[:, :, margin : margin + height]
        columns = conv_out[:, :, :, margin : margin + width]
        wide = sum(along_columns(rows, kernel) for kernel in kernels[: pattern.num_reps])
        tall = sum(along_rows(columns, kernel) for kernel in kernels[pattern.num_reps :])
        return wide.contiguous(), tall, identity(conv_out)

    return run


class _Slices(torch.autograd.Function):
    """Gathers by index: ``index_select`` would first copy the whole view."""

    @staticmethod
    def forward(ctx, conv_out: Tensor, pattern: ShiftPattern, height: int, width: int, steps: list):
        ctx.pattern, ctx.steps, ctx.shape = pattern, steps, conv_out.shape
        channels = pattern.channels
        wide, tall = (conv_out.new_zeros(len(conv_out), channels, height, width) for _ in range(2))
        rows, columns = _views(conv_out, pattern.margin, height, width)
        for dim, target, origin, group in steps:
            if dim == _COLUMNS:
                wide[target] += rows[origin][:, group]
            else:
                tall[target] += columns[origin][:, group]
        return wide, tall, _identity(pattern, height, width)(conv_out)

    @staticmethod
    def backward(ctx, wide: Tensor, tall: Tensor, small: Tensor):
        height, width = small.shape[2:]
        grad = wide.new_zeros(ctx.shape)
        margin = ctx.pattern.margin
        rows, columns = _views(grad, margin, height, width)
        for dim, target, origin, group in ctx.steps:
            if dim == _COLUMNS:
                rows[origin][:, group] += wide[target]
            else:
                columns[origin][:, group] += tall[target]
        centre = rows[..., margin : margin + width]
        for picked in ctx.pattern.identity_index.unbind(1):
            centre[:, picked] += small
        return grad, None, None, None, None


class _Permute(torch.autograd.Function):
    """``source[:, order]`` whose gradient is a gather too, since the order is a permutation."""

    @staticmethod
    def forward(ctx, source: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return source[:, order]

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad[:, ctx.inverse], None, None


ALTERNATIVES: dict[str, Callable[[ShiftPattern, int, int], ShiftAdd]] = {
    'slices': slices,
    'torch.roll': roll,
    'deformable conv': deformable,
    'one-hot conv': one_hot,
    'grid_sample': grid_sample,
}
"""The alternatives by name: each takes a pattern and the height and width of the map."""


def _slots(pattern: ShiftPattern) -> Iterator[tuple[int, int, Tensor]]:
    """Every (dimension, shift) of every repetition with the groups, one per channel, moved so."""
    channels, groups = pattern.channels, pattern.num_groups
    table = pattern.shift_hv.to(torch.int64)
    slot = shift_slot(table, pattern.big_kernel, pattern.small_kernel)
    taken = slot.t().reshape(-1, channels, groups).argsort(dim=2)  # group of every slot
    first = torch.arange(0, channels * groups, groups, device=table.device).unsqueeze(1)
    for column, group in enumerate(taken + first):
        dim = _COLUMNS if column < pattern.num_reps else _ROWS
        for index in range(groups):
            shift = slot_shift(torch.tensor(index), pattern.big_kernel, pattern.small_kernel)
            yield dim, int(shift), group[:, index].contiguous()


def _along(dim: int, part: slice) -> tuple[slice, ...]:
    return (*[slice(None)] * dim, part)


def _views(conv_out: Tensor, margin: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The rows, and the columns, of a map in the output of the small convolutions."""
    return conv_out[:, :, margin : margin + height], conv_out[:, :, :, margin : margin + width]


def _identity(pattern: ShiftPattern, height: int, width: int) -> Callable[[Tensor], Tensor]:
    margin = pattern.margin

    def run(conv_out: Tensor) -> Tensor:
        centre = conv_out[:, :, margin : margin + height, margin : margin + width]
        return sum(centre[:, picked] for picked in pattern.identity_index.unbind(1))

    return run


def _slot_by_slot(
    pattern: ShiftPattern, height: int, width: int, make: Callable[[int, int], _Move]
) -> ShiftAdd:
    """Bring the groups in the order of their slots, move each slot by ``make(shift, dim)``, add."""
    made: dict[tuple[int, int], _Move] = {}
    moves: dict[int, list[_Move]] = {_COLUMNS: [], _ROWS: []}
    order: dict[int, list[Tensor]] = {_COLUMNS: [], _ROWS: []}
    for dim, shift, group in _slots(pattern):
        if (dim, shift) not in made:
            made[dim, shift] = make(shift, dim)
        moves[dim].append(made[dim, shift])
        order[dim].append(group)
    groups = pattern.num_groups
    orders = {
        dim: [(each, each.argsort()) for each in torch.cat(found).view(pattern.num_reps, -1)]
        for dim, found in order.items()
    }
    identity = _identity(pattern, height, width)

    def arm(source: Tensor, dim: int) -> Tensor:
        out = source.new_zeros(source.shape[0], pattern.channels, height, width)
        for rep, (each, inverse) in enumerate(orders[dim]):
            slots = _Permute.apply(source, each, inverse).chunk(groups, dim=1)
            for slot, move in zip(slots, moves[dim][rep * groups :], strict=False):
                out += move(slot)
        return out

    def run(conv_out: Tensor) -> Outputs:
        rows, columns = _views(conv_out, pattern.margin, height, width)
        return arm(rows, _COLUMNS), arm(columns, _ROWS), identity(conv_out)

    return run
