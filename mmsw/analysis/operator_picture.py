"""A picture that explains the shift-wise operator, drawn from a real pattern."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsw.ops import ShiftPattern
from mmsw.ops.assemble import assemble
from mmsw.ops.pattern_tables import shift_slot
from mmsw.whole_file import write_whole

_INK = '#222222'
_SOFT = '#777777'
_PRUNED = '#e4e4e4'
_HEAT = 'RdBu_r'
_DPI = 110


def draw_operator(
    path: str | os.PathLike[str],
    big_kernel: int = 51,
    small_kernel: int = 3,
    num_reps: int = 4,
    sparsity: float = 0.3,
    seed: int = 0,
) -> None:
    """Write a PNG: the small kernels of a channel, where they are put, and what they add up to.

    Args:
        path: File to write; replaced if it exists, and whole if it is there.
        big_kernel: Focus length M.
        small_kernel: Side N.
        num_reps: Repetitions R of the pattern.
        sparsity: Share of the small kernels that is pruned, in ``[0, 1)``.
        seed: Of the weights and of the choice of pruned kernels.

    Raises:
        ValueError: If the sizes do not fit together.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f'sparsity must be in [0, 1), got {sparsity}')
    pattern = ShiftPattern.draw(big_kernel, small_kernel, channels=1, num_reps=num_reps)
    weight, kept = _small_kernels(pattern, sparsity, seed)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.6, 4.7))
    grid = figure.add_gridspec(
        1, 3, width_ratios=[0.62, 1, 1], left=0.012, right=0.988, top=0.86, bottom=0.1, wspace=0.27
    )
    kernels, places, cross = (figure.add_subplot(cell) for cell in grid)
    colours = _colours(pattern.num_groups)
    limit = float(weight.abs().max())
    _draw_kernels(kernels, weight, kept, colours, limit)
    _draw_places(places, pattern, kept, colours)
    _draw_cross(cross, weight, pattern, limit)

    for axis, title, caption in (
        (
            kernels,
            f'1  {pattern.num_groups} small kernels, {small_kernel} × {small_kernel}',
            f'of one channel; {int((~kept).sum())} are pruned',
        ),
        (
            places,
            '2  shifted to their places',
            f'1 of {num_reps} repetitions, each permuted anew',
        ),
        (
            cross,
            f'3  summed: a {big_kernel} × {big_kernel} cross',
            f'{num_reps} repetitions plus the unshifted identity',
        ),
    ):
        axis.set_title(title, fontsize=13.5, color=_INK, loc='left', pad=12, fontweight='bold')
        axis.text(0, -0.03, caption, transform=axis.transAxes, fontsize=10.5, color=_SOFT, va='top')
        axis.set_axis_off()
    _draw_arrows(figure, kernels, places, cross)
    write_whole(Path(path), lambda temporary: figure.savefig(temporary, dpi=_DPI))


def cross_kernel(weight: Tensor, pattern: ShiftPattern) -> Tensor:
    """The whole depthwise kernel of a pattern's first channel: both arms and the identity, added.

    Args:
        weight: Small kernels ``[C * nk, 1, N, N]``.
        pattern: Shifts.

    Returns:
        ``[L, L]``, in the orientation of ``F.conv2d``.
    """
    wide, tall, small = assemble(weight, pattern.tables())
    taps, n = tall.shape[1:]
    start = taps // 2 - n // 2
    whole = weight.new_zeros(taps, taps)
    whole[start : start + n] += wide[0].t()
    whole[:, start : start + n] += tall[0]
    whole[start : start + n, start : start + n] += small[0]
    return whole


def slots(pattern: ShiftPattern) -> tuple[list[int], list[int]]:
    """Slots of the first channel's kernels, first repetition: horizontal arm, vertical arm."""
    table = pattern.shift_hv[: pattern.num_groups]
    slot = shift_slot(table, pattern.big_kernel, pattern.small_kernel)
    return slot[:, 0].tolist(), slot[:, pattern.num_reps].tolist()


def _small_kernels(pattern: ShiftPattern, sparsity: float, seed: int) -> tuple[Tensor, Tensor]:
    """Smooth random kernels ``[nk, 1, N, N]``, zero where pruned, and which are kept."""
    generator = torch.Generator().manual_seed(seed)
    nk, n = pattern.num_groups, pattern.small_kernel
    line = torch.linspace(-1, 1, n)
    rows, columns = torch.meshgrid(line, line, indexing='ij')
    mix = torch.randn(nk, 4, generator=generator)
    basis = torch.stack([torch.ones(n, n), rows, columns, 1 - rows**2 - columns**2])
    weight = torch.einsum('kb,bij->kij', mix, basis).unsqueeze(1)
    kept = torch.ones(nk, dtype=torch.bool)
    kept[torch.randperm(nk, generator=generator)[: round(sparsity * nk)]] = False
    return weight * kept.view(-1, 1, 1, 1), kept


def _colours(number: int) -> np.ndarray:
    """Clearly different light colours, neighbours in number far apart in hue."""
    from matplotlib.colors import hsv_to_rgb

    hue = np.arange(number) * 0.381966 % 1
    value = np.where(np.arange(number) % 2, 0.97, 0.86)
    return hsv_to_rgb(np.stack([hue, np.full(number, 0.5), value], 1))


def _draw_kernels(axis, weight: Tensor, kept: Tensor, colours: np.ndarray, limit: float) -> None:
    from matplotlib.patches import Rectangle

    columns = 3
    rows = -(-len(weight) // columns)
    for index, kernel in enumerate(weight[:, 0].numpy()):
        row, column = divmod(index, columns)
        left, top = column * 1.35, row * 1.0
        if kept[index]:
            axis.imshow(
                kernel, extent=(left, left + 0.8, top + 0.8, top),
                cmap=_HEAT, vmin=-limit, vmax=limit, interpolation='nearest',
            )  # fmt: skip
        axis.add_patch(
            Rectangle(
                (left, top), 0.8, 0.8, linewidth=2.6, zorder=3,
                facecolor='none' if kept[index] else _PRUNED,
                edgecolor=colours[index] if kept[index] else '#c8c8c8',
            )
        )  # fmt: skip
        axis.text(
            left + 0.89, top + 0.4, str(index), fontsize=9, va='center',
            color=_INK if kept[index] else '#aaaaaa',
        )  # fmt: skip
    axis.set_xlim(-0.1, columns * 1.35 - 0.1)
    axis.set_ylim(rows * 1.0, -0.1)
    axis.set_aspect('equal', anchor='NW')


def _draw_places(axis, pattern: ShiftPattern, kept: Tensor, colours: np.ndarray) -> None:
    from matplotlib.patches import Polygon

    n, side = pattern.small_kernel, pattern.num_groups * pattern.small_kernel
    start = pattern.big_kernel // 2 - n // 2
    horizontal, vertical = slots(pattern)
    crossing = start // n if start % n == 0 else None
    for arm, places in enumerate((horizontal, vertical)):
        for group, slot in enumerate(places):
            along = slot * n
            x, y = (along, start) if arm == 0 else (start, along)
            corners = [(x, y), (x + n, y), (x + n, y + n), (x, y + n)]
            middle = (x + n / 2, y + n / 2)
            if slot == crossing:  # shared by both arms: half each
                corners = [(x, y), (x + n, y), (x, y + n)] if arm else corners[1:]
                middle = (x + n * (0.3 if arm else 0.7), y + n * (0.3 if arm else 0.7))
            face = colours[group] if kept[group] else _PRUNED
            axis.add_patch(Polygon(corners, facecolor=face, edgecolor='white', linewidth=1.0))
            axis.text(
                *middle, str(group), ha='center', va='center',
                fontsize=5.2 if slot == crossing else 7.4,
                color=_INK if kept[group] else '#aaaaaa',
            )  # fmt: skip
    for x, y, text, align in (
        (start - 1.5, start / 2, 'vertical\narm', 'right'),
        (start + n + 1.5, start + n + 3, 'horizontal arm', 'left'),
    ):
        axis.text(x, y, text, ha=align, va='center', fontsize=9.5, color=_SOFT)
    axis.set_xlim(0, side)
    axis.set_ylim(side, 0)
    axis.set_aspect('equal', anchor='NW')


def _draw_cross(axis, weight: Tensor, pattern: ShiftPattern, limit: float) -> None:
    from matplotlib.patches import Rectangle

    whole = cross_kernel(weight, pattern).numpy()
    side = len(whole)
    limit = max(limit, float(np.quantile(np.abs(whole[whole != 0]), 0.98)))
    whole = np.where(whole == 0, np.nan, whole)
    axis.imshow(
        whole, cmap=_HEAT, vmin=-limit, vmax=limit, interpolation='nearest',
        extent=(0, side, side, 0), zorder=1,
    )  # fmt: skip
    axis.add_patch(
        Rectangle((0, 0), side, side, facecolor='#fafafa', edgecolor='#d0d0d0', zorder=0)
    )
    axis.text(side * 0.74, side * 0.26, 'zero', ha='center', fontsize=9.5, color=_SOFT)
    axis.set_aspect('equal', anchor='NW')


def _draw_arrows(figure, *axes) -> None:
    from matplotlib.patches import FancyArrowPatch

    figure.draw_without_rendering()
    boxes = [axis.get_position() for axis in axes]
    for left, right in itertools.pairwise(boxes):
        middle = (left.y0 + left.y1) / 2
        figure.add_artist(
            FancyArrowPatch(
                (left.x1 + 0.008, middle), (right.x0 - 0.008, middle),
                transform=figure.transFigure, arrowstyle='-|>', mutation_scale=20,
                linewidth=2, color=_INK,
            )
        )  # fmt: skip
