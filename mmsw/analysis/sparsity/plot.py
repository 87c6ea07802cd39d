"""The picture of a sparsity analysis: layers, distances, and what is left beside the work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsw.figure import GRID, INK, MARKERS, SOFT, STAGES, picture, tinted, title

from .figures import Part, SparsityAnalysis

_GAP = 0.9  # between the stages, in bars
_OTHERS = 0.45  # strength of the colour in layers that are not first
_WEIGHTS = dict(marker='D', ls='', ms=5, color='none', mec=INK, mew=1.1)
_PATHS = dict(color=INK, marker='_', ls='', ms=8, mew=1.2)
_FEW = 14  # layers up to which every bar gets its figure
_ABOVE = dict(loc='lower left', bbox_to_anchor=(0, 1.0), borderaxespad=0.2, columnspacing=1.2,
              handlelength=1.5, handletextpad=0.5, labelspacing=0.3)  # fmt: skip


def draw_sparsity(analysis: SparsityAnalysis, path: str | os.PathLike[str]) -> None:
    """Write three panels; what they show is said in ``docs/sparsity_analysis.md``.

    Args:
        analysis: The figures.
        path: Picture to write, as SVG and as PNG; replaced if it exists, and whole if it is there.
    """
    with picture(Path(path), 5.6) as figure:
        panels = figure.subplot_mosaic(
            [['a', 'a'], ['b', 'c']], height_ratios=(0.72, 1), width_ratios=(1, 1.1)
        )
        _draw_layers(panels['a'], analysis)
        _draw_distances(panels['b'], analysis)
        _draw_work(panels['c'], analysis)
        for axes in panels.values():
            axes.grid(axis='y')
            axes.set_ylim(0, 1.08)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
            axes.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')


def _draw_layers(axes: Any, analysis: SparsityAnalysis) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    places, names, left = [], [], 0.0
    weights = analysis.has_single_weights
    differ, few = analysis.total.paths_differ, len(analysis.layers) <= _FEW
    for stage, part in enumerate(analysis.stages):
        layers, colour = analysis.layers_of(stage), STAGES[stage % len(STAGES)]
        own = [left + index for index in range(len(layers))]
        for index, (x, layer) in enumerate(zip(own, layers, strict=True)):
            kept = layer.density.density
            axes.bar(x, kept, 0.6, color=tinted(colour, 1.0 if index == 0 else _OTHERS))
            if few:
                marks = _marks(layer, weights, differ)
                _label(axes, x, max(kept, part.density.density, *marks), f'{kept:.1%}')
            if weights:
                axes.plot(x, layer.density.weight_density, **_WEIGHTS)
            if differ:
                paths = [path.density for path in layer.paths]
                axes.plot([x] * len(paths), paths, **_PATHS)
        axes.hlines(part.density.density, own[0] - 0.4, own[-1] + 0.4, color=INK, lw=1.0, ls=':')
        axes.text(
            (own[0] + own[-1]) / 2, 1.1, f'stage {stage}', ha='center', va='bottom', color=colour,
            fontweight='bold',
        )  # fmt: skip
        places += own
        names += [str(index) for index in range(len(layers))]
        left = own[-1] + 1 + _GAP
    axes.set_xticks(places, names)
    axes.set_xlim(-0.7, places[-1] + 0.7)
    axes.set_xlabel('block of the stage')
    axes.set_ylabel('filters kept')
    title(axes, 'a', 'Density per layer', pad=18)
    handles = [
        Patch(color=SOFT, label='first layer'),
        Patch(color=tinted(SOFT, _OTHERS), label='other layers'),
        Line2D([], [], color=INK, ls=':', lw=1.0, label='whole stage'),
    ]
    if differ:
        handles.append(Line2D([], [], **_PATHS, label='single paths'))
    if weights:
        handles.append(Line2D([], [], **_WEIGHTS, label='single weights'))
    where = dict(loc='lower right', bbox_to_anchor=(1, 1.08))
    axes.legend(handles=handles, ncols=len(handles), **_ABOVE | where)


def _marks(layer: Part, weights: bool, differ: bool) -> list[float]:
    """Heights of what stands on a bar."""
    marks = [path.density for path in layer.paths] if differ else []
    return [0.0, *marks, *([layer.density.weight_density] if weights else [])]


def _draw_distances(axes: Any, analysis: SparsityAnalysis) -> None:
    from matplotlib.lines import Line2D

    stages = analysis.stages
    farthest = max(max(part.by_distance()) for part in stages)
    aside = farthest * 1.1 + 1
    for stage, part in enumerate(stages):
        colour, marker = STAGES[stage % len(STAGES)], MARKERS[stage % len(MARKERS)]
        found = part.by_distance()
        kept = [placed.density for placed in found.values()]
        blocks = [placed.block_density for placed in found.values()]
        look = dict(color=colour, marker=marker, ms=4, lw=1.2)
        label = f'stage {stage}, M = {analysis.network.big_kernels[stage]}'
        axes.plot(list(found), kept, '-', label=label, **look)
        axes.plot(list(found), blocks, '--', markerfacecolor='none', **look)
        axes.plot(
            aside + (stage - (len(stages) - 1) / 2) * farthest * 0.022, part.identity.density,
            marker=marker, color=colour, ms=5, ls='',
        )  # fmt: skip
    axes.axvline((farthest + aside) / 2, color=GRID, lw=1)
    ticks = list(range(0, farthest + 1, 5 if farthest > 12 else 2))
    axes.set_xticks([*ticks, aside], [*map(str, ticks), 'identity'])
    axes.set_xlim(-0.03 * farthest, aside + 0.09 * farthest)
    axes.set_xlabel('distance from the centre [positions of the map]')
    axes.set_ylabel('share left')
    title(axes, 'b', 'Density by distance', pad=30 + 11 * (len(stages) > 4))
    handles, _ = axes.get_legend_handles_labels()
    handles += [
        Line2D([], [], color=SOFT, lw=1.2, marker='o', ms=4, label='filters kept'),
        Line2D([], [], color=SOFT, lw=1.2, marker='o', ms=4, mfc='none', ls='--',
               label='blocks not empty'),
    ]  # fmt: skip
    axes.legend(handles=handles, ncols=3, **_ABOVE | dict(columnspacing=0.8))


def _draw_work(axes: Any, analysis: SparsityAnalysis) -> None:
    """Bars in the colour of their stage; how strong the colour is says what a bar is of."""
    from matplotlib.patches import Patch

    parts = [*analysis.stages, analysis.total]
    names = [*(f'stage {stage}' for stage in range(len(parts) - 1)), 'in all']
    colours = [*(STAGES[stage % len(STAGES)] for stage in range(len(parts) - 1)), SOFT]
    series: list[tuple[str, dict[str, Any], Sequence[float]]] = [
        ('filters kept', {'alpha': 0.45}, [part.density.density for part in parts])
    ]
    if analysis.has_single_weights:
        weights = [part.density.weight_density for part in parts]
        series.append(('weights kept', {'alpha': 0.2}, weights))
    if analysis.total.paths_differ:
        covered = [part.covered_density for part in parts]
        series.append(('kept by some path', {'alpha': 0.7}, covered))
    series.append(('multiply-adds left', {}, [part.work_left for part in parts]))
    width = 0.84 / len(series)
    for index, (_, look, values) in enumerate(series):
        for x, (value, colour) in enumerate(zip(values, colours, strict=True)):
            place = x + (index - (len(series) - 1) / 2) * width
            axes.bar(place, value, width * 0.9, color=colour, **look)
            _label(axes, place, value, _percent(value))
    axes.axvline(len(parts) - 1.5, color=GRID, lw=1)
    axes.set_xticks(range(len(parts)), names)
    axes.tick_params(axis='x', length=0)
    axes.set_ylabel('share left')
    title(axes, 'c', f'Filters kept vs. work left, R = {analysis.network.num_reps}', pad=18)
    handles = [Patch(color=SOFT, label=label, **look) for label, look, _ in series]
    axes.legend(handles=handles, ncols=len(series), **_ABOVE | dict(columnspacing=0.8))


def _label(axes: Any, x: float, y: float, text: str) -> None:
    axes.text(x, y + 0.015, text, ha='center', va='bottom', fontsize=8)


def _percent(share: float) -> str:
    """Without digits that a bar cannot show, but never 100 where something is gone."""
    text = f'{100 * share:.0f}'
    return '>99' if text == '100' and share < 1 else text
