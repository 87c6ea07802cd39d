"""The picture of the benchmark: accuracy, and time and work of the operator, against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..plot import BLUE, GREEN, GREY, RED, picture
from .plan import DENSE
from .summary import Cell

_COLOURS = {DENSE: GREY, 'static': BLUE, 'filter': RED, 'weight': GREEN}
_LABELS = {'static': 'static', 'filter': 'dynamic, filters', 'weight': 'dynamic, weights'}
_MARKERS = {'static': 's', 'filter': 'o', 'weight': '^'}
_APART = 0.9  # per cent of sparsity between the points of neighbouring methods


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Draw three panels; nothing is written where no sparse run is finished.

    Args:
        cells: All cells of the report.
        path: Picture to write, whole or not at all.
    """
    sparse = [cell for cell in cells if cell.method != DENSE and cell.results]
    if not sparse:
        return
    ticks = sorted({round(100 * cell.sparsity, 4) for cell in sparse})
    with picture(path, (13, 4.2), 1, (1.25, 1, 1)) as ((left, middle, right),):
        _draw_accuracy(left, cells, sparse)
        _draw_operator(middle, cells, sparse)
        _draw_work(right, sparse)
        for axes in (left, middle, right):
            axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
            axes.set_xlabel('pruned [%]')


def _draw_accuracy(axes, cells: Sequence[Cell], sparse: Sequence[Cell]) -> None:
    dense = next((cell for cell in cells if cell.method == DENSE and cell.results), None)
    if dense is not None:
        spread = dense.spread(lambda r: r['accuracy'])
        axes.axhline(spread.mean, color=_COLOURS[DENSE], label='dense')
        if not np.isnan(spread.deviation):
            low, high = spread.mean - spread.deviation, spread.mean + spread.deviation
            axes.axhspan(low, high, color=_COLOURS[DENSE], alpha=0.18, lw=0)
    for offset, method, own in _methods(sparse):
        spreads = [cell.spread(lambda r: r['accuracy']) for cell in own]
        places = [100 * cell.sparsity + offset for cell in own]
        errors = [0.0 if np.isnan(s.deviation) else s.deviation for s in spreads]
        for place, cell in zip(places, own, strict=True):
            values = [result['accuracy'] for result in cell.results.values()]
            axes.plot(
                [place] * len(values), values, '.', color=_COLOURS[method], alpha=0.45, zorder=1
            )
        axes.errorbar(
            places, [s.mean for s in spreads], errors, capsize=3, label=_LABELS[method],
            color=_COLOURS[method], marker=_MARKERS[method], markersize=5,
        )  # fmt: skip
    axes.set_ylabel('accuracy [%]')
    axes.set_title('accuracy: mean ± standard deviation, every seed', fontsize=9.5)
    axes.legend(frameon=False, fontsize=9)


def _draw_operator(axes, cells: Sequence[Cell], sparse: Sequence[Cell]) -> None:
    axes.axhline(1.0, color=_COLOURS[DENSE], linewidth=1)
    for offset, method, own in _methods([cell for cell in sparse if cell.operators]):
        for mode, style in (('forward', '-'), ('forward_backward', ':')):
            spreads = [cell.operator(lambda o, mode=mode: o[mode]['ratio']) for cell in own]
            errors = [0.0 if np.isnan(s.deviation) else s.deviation for s in spreads]
            axes.errorbar(
                [100 * cell.sparsity + offset for cell in own], [s.mean for s in spreads], errors,
                capsize=3, linestyle=style, color=_COLOURS[method], marker=_MARKERS[method],
                markersize=5,
            )  # fmt: skip
    axes.set_ylim(0, max(1.1, axes.get_ylim()[1]))
    axes.set_ylabel('time / time with nothing pruned')
    axes.set_title('operator time: forward (solid), with backward (dotted)', fontsize=9.5)


def _draw_work(axes, sparse: Sequence[Cell]) -> None:
    places = sorted({100 * cell.sparsity for cell in sparse})
    axes.plot(places, [100 - place for place in places], ':', color='black', label='weights left')
    for offset, method, own in _methods([cell for cell in sparse if cell.operators]):
        axes.plot(
            [100 * cell.sparsity + offset for cell in own],
            [100 * cell.operator(lambda o: o['work_left']).mean for cell in own],
            color=_COLOURS[method], marker=_MARKERS[method], markersize=5,
        )  # fmt: skip
    axes.set_ylim(0, 105)
    axes.set_ylabel('left [%]')
    axes.set_title('multiply-adds left in blocks that are not empty', fontsize=9.5)
    axes.legend(frameon=False, fontsize=9, loc='lower left')


def _methods(cells: Sequence[Cell]) -> list[tuple[float, str, list[Cell]]]:
    """Shift on the axis, method and its cells by sparsity."""
    names = [name for name in _LABELS if any(cell.method == name for cell in cells)]
    middle = (len(names) - 1) / 2
    return [
        (
            _APART * (number - middle),
            name,
            sorted((c for c in cells if c.method == name), key=lambda cell: cell.sparsity),
        )
        for number, name in enumerate(names)
    ]
