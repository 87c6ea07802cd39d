"""The picture of receptive fields: one heat map per network, on one scale, with its squares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from mmsw.figure import WIDTH, figure_of, save, title

from .area import SHARES, Square, high_contribution_squares

_COLUMNS = 3
_CELLS = 128  # along the longer side of a heat map
_TITLE, _LETTERS = 9.5, 28  # points of a panel's title, and letters that fit
_LOWEST = 1e-5  # of the highest score
_HEAT = 'magma'
_LINES = (':', '--', '-.', '-')  # from the smallest square
_SQUARE = '#7fd8ff'  # seen on every colour of the map


def draw_receptive_fields(fields: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write a panel per network: its scores, relative to their highest, and the squares of them.

    The scale is logarithmic and the same in all panels. Images are drawn in cells of several
    pixels, of which each has the mean.

    Args:
        fields: Name of a network -> scores ``[H, W]``, see
            :func:`mmsw.analysis.effective_receptive_field`.
        path: Picture to write, ``.svg`` or ``.png``; replaced if it exists, and whole if it is
            there.
    """
    from matplotlib.colors import LogNorm

    columns = min(_COLUMNS, len(fields))
    rows = ceil(len(fields) / columns)
    side = WIDTH / _COLUMNS
    with figure_of(rows * (side + 0.3) + 0.75, max(columns * side, 0.6 * WIDTH)) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        norm = LogNorm(_LOWEST, 1, clip=True)
        for index, (name, scores) in enumerate(fields.items()):
            heat = _draw(panels[index], scores, norm)
            fontsize = min(_TITLE, _TITLE * _LETTERS / len(name))
            title(panels[index], chr(ord('a') + index), name, fontsize=fontsize)
        for axes in panels[len(fields) :]:
            axes.set_axis_off()
        bar = figure.colorbar(
            heat, ax=panels.tolist(), location='bottom', aspect=60, pad=0.02, extend='min'
        )
        bar.outline.set_visible(False)
        bar.set_label('contribution to the centre of the map, relative to the highest')
        figure.legend(
            handles=_legend(), loc='outside upper center', ncols=1 + len(SHARES), columnspacing=1.4
        )
        save(figure, Path(path))


def _draw(axes: Any, scores: np.ndarray, norm: Any) -> Any:
    height, width = scores.shape
    cells = _pooled(scores)
    heat = axes.imshow(
        cells / cells.max(), cmap=_HEAT, norm=norm, extent=(0, width, height, 0),
        interpolation='nearest',
    )  # fmt: skip
    squares = high_contribution_squares(scores)
    for square, line in zip(squares.values(), _LINES, strict=True):
        _frame(axes, square, line, height, width)
    ratios = '  '.join(f'{share:.0%}: {square.area_ratio:.1%}' for share, square in squares.items())
    axes.set_xlabel(ratios, fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return heat


def _frame(axes: Any, square: Square, line: str, height: int, width: int) -> None:
    """The outline of a square, of which the middle is that of pixel ``(H // 2, W // 2)``."""
    from matplotlib.patches import Rectangle

    reach = square.side / 2
    left, top = (max(side // 2 + 0.5 - reach, 0) for side in (width, height))
    right, bottom = (min(side // 2 + 0.5 + reach, side) for side in (width, height))
    axes.add_patch(
        Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor=_SQUARE, linewidth=1.0,
            linestyle=line,
        )
    )  # fmt: skip


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D

    first = Line2D([], [], linestyle='', label='squares that hold')
    return [
        first,
        *(
            Line2D([], [], color='#2a84c4', linestyle=line, label=f'{share:.0%}')
            for share, line in zip(SHARES, _LINES, strict=True)
        ),
    ]


def _pooled(scores: np.ndarray) -> np.ndarray:
    """Means over blocks of pixels, so that at most ``_CELLS`` cells are left along a side."""
    step = ceil(max(scores.shape) / _CELLS)
    starts = [np.arange(0, side, step) for side in scores.shape]
    sums = np.add.reduceat(np.add.reduceat(scores, starts[0], axis=0), starts[1], axis=1)
    sizes = [
        np.diff(np.append(start, side)) for start, side in zip(starts, scores.shape, strict=True)
    ]
    return sums / np.outer(*sizes)
