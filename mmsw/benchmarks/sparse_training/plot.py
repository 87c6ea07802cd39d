"""The picture of the benchmark: accuracy against dense, what time is saved, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsw.figure import GRID, INK, METHODS, SOFT, apart, picture, style_of, title

from ..comparison import Spread
from .plan import DENSE
from .summary import Cell

_STEP = 0.24  # between the methods of a share, in distances of two shares
_HOLLOW = dict(markerfacecolor='none')


def draw(cells: Sequence[Cell], path: Path) -> bool:
    """Draw three panels; nothing is written where no sparse run is finished.

    Args:
        cells: All cells of the report; results may be missing.
        path: Picture to write, as SVG and as PNG.

    Returns:
        Whether there was something to draw.
    """
    sparse = [cell for cell in cells if cell.method != DENSE and cell.results]
    if not sparse:
        return False
    dense = next((cell for cell in cells if cell.method == DENSE and cell.results), None)
    shares = sorted({cell.sparsity for cell in sparse})
    with picture(path, 5.4) as figure:
        panels = figure.subplot_mosaic([['a', 'a'], ['b', 'c']], height_ratios=[1.1, 1])
        _draw_accuracy(panels['a'], sparse, dense, shares)
        _draw_time(panels['b'], sparse, dense, shares)
        _draw_left(panels['c'], sparse, shares)
        for axes in panels.values():
            axes.set_xticks(range(len(shares)), [f'{100 * share:g}' for share in shares])
            axes.set_xlim(-0.5, len(shares) - 0.5)
            axes.tick_params(axis='x', length=0)
            axes.set_xlabel('filters or weights pruned [%]')
            axes.grid(axis='y')
            for place in range(1, len(shares)):
                axes.axvline(place - 0.5, color=GRID, linewidth=0.8)
    return True


def _draw_accuracy(
    axes: Any, sparse: Sequence[Cell], dense: Cell | None, shares: Sequence[float]
) -> None:
    """Paired differences to dense, or the accuracy itself where dense is not there."""
    for place, cell in _places(sparse, shares):
        style = style_of(cell.method)
        common = sorted(set(cell.results) & set(dense.results)) if dense else sorted(cell.results)
        values = [
            cell.results[seed]['accuracy'] - (dense.results[seed]['accuracy'] if dense else 0)
            for seed in common
        ]
        _draw_seeds(axes, place, values, style.colour)
        _draw_spread(axes, place, Spread.of(values), style)
    text = 'no dense run to compare with'
    if dense:
        axes.axhline(0, color=style_of(DENSE).colour, linewidth=1.2)
        text = f'zero: dense, {dense.spread(lambda r: r["accuracy"]).text()} %'
    axes.text(1, 1.02, text, transform=axes.transAxes, ha='right', va='bottom', fontsize=8)
    what = 'Accuracy minus dense, paired by seed: mean and 95% interval, every seed as a dot'
    title(axes, 'a', what if dense else 'Accuracy: mean and 95% interval', pad=18)
    axes.set_ylabel('percentage points' if dense else 'accuracy [%]')
    handles = [_handle(style_of(name)) for name in _methods(sparse)]
    axes.legend(handles=handles, ncols=4, **_above())


def _draw_time(
    axes: Any, sparse: Sequence[Cell], dense: Cell | None, shares: Sequence[float]
) -> None:
    """The operators alone relative to nothing pruned, and whole iterations relative to dense."""
    axes.axhline(1.0, color=style_of(DENSE).colour, linewidth=1.2)
    for place, cell in _places(sparse, shares):
        style = style_of(cell.method)
        if cell.operators:
            forward, both = (
                cell.operator(lambda o, mode=mode: o[mode]['ratio'])
                for mode in ('forward', 'forward_backward')
            )
            axes.plot(place - 0.06, forward.mean, '_', color=style.colour, ms=8, mew=2)
            _draw_spread(axes, place - 0.06, both, style)
        if dense:
            whole = cell.against(dense, _seconds_ratio)
            _draw_spread(axes, place + 0.06, whole, style, **_HOLLOW)
    axes.set_ylim(0, max(1.15, axes.get_ylim()[1]))
    axes.set_ylabel('time / time unpruned')
    title(axes, 'b', 'Time of the operators and of all', pad=30)
    words = {'operators, with backward': {}, 'operators, forward': None, 'whole iteration': _HOLLOW}
    handles = [_sign(text, how) for text, how in words.items()]
    axes.legend(handles=handles, ncols=2, **_above())


def _draw_left(axes: Any, sparse: Sequence[Cell], shares: Sequence[float]) -> None:
    for place, cell in _places([cell for cell in sparse if cell.operators], shares):
        work = cell.operator(lambda operator: 100 * operator['work_left'])
        _draw_spread(axes, place, work, style_of(cell.method))
    for place, share in enumerate(shares):
        left = 100 * (1 - share)
        line = axes.hlines(
            left, place - 0.36, place + 0.36, color=INK, linestyle=':', linewidth=1.4
        )
    line.set_label('weights left')
    axes.set_ylim(0, 108)
    axes.set_ylabel('multiply-adds left [%]')
    title(axes, 'c', 'Multiply-adds and weights left', pad=18)
    axes.legend(**_above())


def _seconds_ratio(result: dict[str, Any], dense: dict[str, Any]) -> float:
    return result['seconds_per_iteration'] / dense['seconds_per_iteration']


def _methods(cells: Sequence[Cell]) -> list[str]:
    return [name for name in METHODS if any(cell.method == name for cell in cells)]


def _places(cells: Sequence[Cell], shares: Sequence[float]) -> list[tuple[float, Cell]]:
    """Cells and where they stand: the methods of a share side by side, in a fixed order."""
    names = _methods(cells)
    shifts = dict(zip(names, apart(len(names), _STEP), strict=True))
    return [(shares.index(cell.sparsity) + shifts[cell.method], cell) for cell in cells]


def _draw_spread(axes: Any, place: float, spread: Spread, style: Any, **more: Any) -> None:
    """A mean, with its 95% interval where that is known."""
    if not spread.n:
        return
    low, high = spread.interval or (spread.mean, spread.mean)
    axes.errorbar(
        place, spread.mean, [[spread.mean - low], [high - spread.mean]], color=style.colour,
        marker=style.marker, markersize=5.5, capsize=3, linewidth=1.2, **more,
    )  # fmt: skip


def _draw_seeds(axes: Any, place: float, values: Sequence[float], colour: str) -> None:
    places = place + 0.07 + 0.015 * np.arange(len(values))
    axes.plot(places, values, '.', color=colour, alpha=0.55, markersize=4)


def _handle(style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.colour, marker=style.marker, ls='', label=style.label)


def _sign(text: str, how: dict[str, Any] | None) -> Any:
    """Of a quantity, in a legend: a bar where it has no marker of its method."""
    from matplotlib.lines import Line2D

    if how is None:
        return Line2D([], [], color=SOFT, marker='_', ms=8, mew=2, ls='', label=text)
    return Line2D([], [], color=SOFT, marker='o', ms=5.5, ls='', label=text, **how)


def _above() -> dict[str, Any]:
    return dict(
        loc='lower left', bbox_to_anchor=(0, 1.0), borderaxespad=0.1, columnspacing=1.4,
        handletextpad=0.4, handlelength=1.4,
    )  # fmt: skip
