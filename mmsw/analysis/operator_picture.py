"""A picture that explains the shift-wise operator, drawn from a real pattern."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsw.figure import GRID, INK, PAPER, SOFT, figure_of, save, title
from mmsw.ops import ShiftPattern
from mmsw.ops.assemble import assemble
from mmsw.ops.pattern_tables import shift_slot

_PRUNED = '#b9bfc6'
_HEAT = 'RdBu_r'
_LEVELS = 41  # of colour
_SIDE = 0.74  # of a filter in the strip, of the distance to the next
_MAP = 128  # positions of the example map, in stage 0 of an image of 512 pixels
_FRAME = dict(fill=False, edgecolor=INK, linewidth=1.2)


def draw_operator(
    path: str | os.PathLike[str],
    big_kernel: int = 51,
    small_kernel: int = 3,
    num_reps: int = 4,
    sparsity: float = 0.3,
    seed: int = 0,
) -> None:
    """Write a picture: the filters of a channel, where they are put, and what they add up to.

    Args:
        path: File to write, ``.svg`` or ``.png``; replaced if it exists, and whole if it is there.
        big_kernel: Focus length M.
        small_kernel: Side N.
        num_reps: Repetitions R of the pattern.
        sparsity: Share of the filters that is pruned, in ``[0, 1)``.
        seed: Of the weights and of the choice of pruned filters.

    Raises:
        ValueError: If the sizes do not fit together.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f'sparsity must be in [0, 1), got {sparsity}')
    pattern = ShiftPattern.draw(big_kernel, small_kernel, channels=1, num_reps=num_reps)
    weight, kept = _filters(pattern, sparsity, seed)
    with figure_of(4.6) as figure:
        figure.set_layout_engine('none')
        _draw(figure, pattern, weight, kept)
        save(figure, Path(path))


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


def _filters(pattern: ShiftPattern, sparsity: float, seed: int) -> tuple[Tensor, Tensor]:
    """Smooth random kernels ``[nk, 1, N, N]``, zero where pruned, and which are kept."""
    generator = torch.Generator().manual_seed(seed)
    nk, n = pattern.num_groups, pattern.small_kernel
    line = torch.linspace(-1, 1, n)
    rows, columns = torch.meshgrid(line, line, indexing='ij')
    mix = torch.randn(nk, 4, generator=generator)
    basis = torch.stack([torch.ones(n, n), rows, columns, 1 - rows**2 - columns**2])
    weight = torch.einsum('kb,bij->kij', mix, basis).unsqueeze(1)
    kept = torch.ones(nk, dtype=torch.bool)
    pruned = min(round(sparsity * nk), nk - 1)
    kept[torch.randperm(nk, generator=generator)[:pruned]] = False
    return weight * kept.view(-1, 1, 1, 1), kept


def _colours(number: int) -> np.ndarray:
    """Clearly different light colours, neighbours in number far apart in hue."""
    from matplotlib.colors import hsv_to_rgb

    hue = np.arange(number) * 0.381966 % 1
    value = np.where(np.arange(number) % 2, 0.97, 0.86)
    return hsv_to_rgb(np.stack([hue, np.full(number, 0.5), value], 1))


def _draw(figure: Any, pattern: ShiftPattern, weight: Tensor, kept: Tensor) -> None:
    big, n, reps = pattern.big_kernel, pattern.small_kernel, pattern.num_reps
    colours = _colours(pattern.num_groups)
    whole = cross_kernel(weight, pattern).numpy()
    limit = max(float(weight.abs().max()), float(np.quantile(np.abs(whole[whole != 0]), 0.8)))
    strip = figure.add_axes((0.005, 0.8, 0.99, 0.13))
    places, cross, reach = (
        figure.add_axes((left, 0.075, width, 0.585))
        for left, width in ((0.005, 0.33), (0.375, 0.33), (0.755, 0.235))
    )
    shown = _example(pattern, kept)
    below = _draw_strip(strip, weight, kept, colours, limit, shown)
    target = _draw_places(places, pattern, kept, colours, shown)
    heat = _draw_cross(cross, whole, pattern, limit)
    _draw_reach(reach, big, n)
    _connect(figure, strip, below, places, target)
    _draw_weights_bar(figure, heat)
    title(strip, 'a', f'{len(kept)} filters of one channel, N × N = {n} × {n}', pad=6)
    title(places, 'b', f'Shifted: 1 of R = {reps} repetitions', pad=17)
    title(cross, 'c', f'R = {reps} summed: an M × M cross', pad=17)
    title(reach, 'd', 'Its reach on the map', pad=17)
    for axes in (strip, places, cross, reach):
        axes.set_axis_off()


def _example(pattern: ShiftPattern, kept: Tensor) -> int:
    """A kept filter of which the vertical arm shows a shift upwards that is easy to see."""
    _, vertical = slots(pattern)
    wanted = pattern.num_groups // 5
    return min((g for g in range(len(kept)) if kept[g]), key=lambda g: abs(vertical[g] - wanted))


def _draw_strip(
    axes: Any, weight: Tensor, kept: Tensor, colours: np.ndarray, limit: float, shown: int
) -> tuple[float, float]:
    """All filters side by side; returns where the shown one ends."""
    from matplotlib.patches import Patch, Rectangle

    for index, kernel in enumerate(weight[:, 0].numpy()):
        if kept[index]:
            edges = np.linspace(0, _SIDE, len(kernel) + 1)
            _heat(axes, index + edges, edges, kernel, limit)
        axes.add_patch(
            Rectangle(
                (index, 0), _SIDE, _SIDE, linewidth=2.2, zorder=3,
                facecolor='none' if kept[index] else _PRUNED,
                edgecolor=colours[index] if kept[index] else _PRUNED,
            )
        )  # fmt: skip
        axes.text(
            index + _SIDE / 2, _SIDE + 0.12, str(index), ha='center', va='top', fontsize=8,
            color=INK if kept[index] else SOFT, fontweight='bold' if index == shown else 'normal',
        )  # fmt: skip
    axes.figure.legend(
        handles=[Patch(color=_PRUNED, label=f'grey = pruned ({int((~kept).sum())})')],
        loc='upper right', bbox_to_anchor=(0.99, 0.985), borderaxespad=0, handlelength=1,
    )  # fmt: skip
    axes.set_xlim(-0.05, len(kept))
    axes.set_ylim(1.25, -0.05)
    axes.set_aspect('equal', anchor='NW')
    return shown + _SIDE / 2, 1.2


def _draw_places(
    axes: Any, pattern: ShiftPattern, kept: Tensor, colours: np.ndarray, shown: int
) -> tuple[float, float]:
    """One repetition of both arms; returns where the shown filter lies."""
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
            if slot == crossing:  # shared by both arms: half each
                corners = [(x, y), (x + n, y), (x, y + n)] if arm else corners[1:]
            face = colours[group] if kept[group] else _PRUNED
            axes.add_patch(Polygon(corners, facecolor=face, edgecolor=PAPER, linewidth=0.8))
            if slot != crossing:
                axes.text(
                    x + n / 2, y + n / 2, str(group), ha='center', va='center_baseline',
                    fontsize=min(8, 150 / len(places)), color='#1b1f24',
                )  # fmt: skip
    middle = start + n / 2
    if crossing is not None:
        both = vertical.index(crossing), horizontal.index(crossing)
        axes.annotate(
            f'centre, in both arms:\n{both[0]} (vertical) and\n{both[1]} (horizontal)',
            (middle + n * 0.2, middle + n * 0.2), (middle + n * 1.6, middle + side * 0.31),
            fontsize=8, color=SOFT, va='center',
            arrowprops=dict(arrowstyle='-', color=SOFT, linewidth=0.9, shrinkA=1, shrinkB=0),
        )  # fmt: skip
    top = vertical[shown] * n + n / 2
    axes.annotate(
        '', (start - 0.7 * n, top), (start - 0.7 * n, middle),
        arrowprops=dict(arrowstyle='-|>', color=INK, linewidth=1.6, shrinkA=0, shrinkB=0),
    )  # fmt: skip
    moved = round(middle - top)
    axes.text(
        start - 1.2 * n, (middle + top) / 2,
        f'filter {shown}\nis shifted by\n{abs(moved)} rows {"up" if moved > 0 else "down"}',
        ha='right', va='center', fontsize=8,
    )  # fmt: skip
    axes.set_xlim(0, side)
    axes.set_ylim(side, 0)
    axes.set_aspect('equal', anchor='NW')
    return start + n, top


def _draw_cross(axes: Any, whole: np.ndarray, pattern: ShiftPattern, limit: float) -> Any:
    from matplotlib.patches import Rectangle

    side, n, big = len(whole), pattern.small_kernel, pattern.big_kernel
    edges, start = np.arange(side + 1), side // 2 - n // 2
    across = slice(start, start + n)
    heat = _heat(axes, edges, edges[start : start + n + 1], whole[across], limit)
    for along in (slice(0, start), slice(start + n, side)):
        rows = edges[along.start : along.stop + 1]
        _heat(axes, edges[start : start + n + 1], rows, whole[along, across], limit)
    axes.add_patch(Rectangle((0, 0), side, side, **_FRAME | dict(linewidth=0.8, edgecolor=GRID)))
    axes.text(side * 0.25, side * 0.25, 'zero', ha='center', va='center', color=SOFT)
    axes.text(
        side * 0.76, side * 0.27, f'both arms\nplus the\nidentity branch\n({n} × {n}, centre)',
        ha='center', va='center', fontsize=8, color=SOFT,
    )  # fmt: skip
    low = (side - big) / 2
    _measure(axes, (low, 1.043 * side), (low + big, 1.043 * side), f'focus length M = {big}')
    _measure(axes, (-0.043 * side, start), (-0.043 * side, start + n), '')
    axes.text(
        -0.067 * side, start + n / 2, f'N = {n}', ha='right', va='center', rotation=90, fontsize=8
    )
    axes.set_xlim(-0.127 * side, side)
    axes.set_ylim(side, 0)
    axes.set_aspect('equal', anchor='NE')
    return heat


def _draw_reach(axes: Any, big: int, n: int) -> None:
    """Where an output position looks on a feature map, with a 7 x 7 convolution to compare."""
    from matplotlib.patches import Rectangle

    side = max(_MAP, 2 * big)
    x = y = round(side * 0.46)
    axes.add_patch(Rectangle((0, 0), side, side, facecolor='#8c8c8c26', edgecolor=SOFT))
    for width, height in ((big, n), (n, big)):
        corner = (x - width / 2, y - height / 2)
        axes.add_patch(Rectangle(corner, width, height, facecolor='#d55e00', edgecolor='none'))
    axes.add_patch(Rectangle((x - 3.5, y - 3.5), 7, 7, **_FRAME, zorder=4))
    axes.annotate(
        '7 × 7', (x + 3.5, y + 3.5), (x + side * 0.14, y + side * 0.13), fontsize=8, va='center',
        arrowprops=dict(arrowstyle='-', color=INK, linewidth=0.9, shrinkA=0, shrinkB=0),
    )  # fmt: skip
    axes.text(x, y - big / 2 - side * 0.02, f'{big} × {big}', ha='center', va='bottom', fontsize=8)
    axes.text(
        0, side * 1.03, va='top', fontsize=8,
        s=f'what one output sees of a map of\n{side} × {side}; a 7 × 7 kernel beside it',
    )  # fmt: skip
    axes.set_xlim(0, side)
    axes.set_ylim(side, 0)
    axes.set_aspect('equal', anchor='NW')


def _heat(axes: Any, x: np.ndarray, y: np.ndarray, values: np.ndarray, limit: float) -> Any:
    """Weights as squares, which stay sharp at any size."""
    from matplotlib import colormaps

    return axes.pcolormesh(
        x, y, values, cmap=colormaps[_HEAT].resampled(_LEVELS), vmin=-limit, vmax=limit,
        edgecolors='face', linewidth=0.3,  # no seams
    )  # fmt: skip


def _measure(axes: Any, begin: tuple, end: tuple, text: str) -> None:
    """A line with two ends, as in a drawing, and what it is the length of."""
    axes.annotate(
        '', begin, end, annotation_clip=False,
        arrowprops=dict(arrowstyle='|-|,widthA=0.25,widthB=0.25', color=INK, lw=0.9, shrinkA=0,
                        shrinkB=0),
    )  # fmt: skip
    axes.text((begin[0] + end[0]) / 2, 1.02 * begin[1], text, ha='center', va='top', fontsize=8)


def _connect(figure: Any, strip: Any, below: tuple, places: Any, target: tuple) -> None:
    """From the shown filter in the strip to its place in the arm."""
    from matplotlib.patches import ConnectionPatch

    figure.draw_without_rendering()
    figure.add_artist(
        ConnectionPatch(
            below, target, strip.transData, places.transData, arrowstyle='-|>',
            connectionstyle='arc3,rad=-0.1', mutation_scale=11, color=INK, linewidth=1.3,
            shrinkB=1,
        )
    )  # fmt: skip


def _draw_weights_bar(figure: Any, heat: Any) -> None:
    axes = figure.add_axes((0.755, 0.072, 0.235, 0.02))
    bar = figure.colorbar(heat, cax=axes, orientation='horizontal', extend='both')
    bar.outline.set_visible(False)
    axes.set_title('weight, in (a) and (c)', fontsize=8, fontweight='normal', pad=3)
    axes.tick_params(length=2, pad=2)
