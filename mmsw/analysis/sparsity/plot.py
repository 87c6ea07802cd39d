"""The picture of a sparsity analysis: layers, distances, and work beside density."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mmsw.whole_file import write_whole

from .figures import Part, SparsityAnalysis

# Okabe and Ito's colours, which most readers with colour-blindness tell apart.
_STAGES = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')
_KEPT, _SINGLE, _COVERED, _WORK = '#7f7f7f', '#c4c4c4', '#56b4e9', '#222222'
_INK, _SOFT, _GRID = '#222222', '#666666', '#dddddd'
_MARKERS = 'osD^vP'
_GAP = 0.9  # between the stages, in bars
_DPI = 130
_TINT = 0.4  # of the colour, in layers that are not first
_TITLE = dict(fontsize=11.5, loc='left', fontweight='bold')
_LEGEND = dict(
    frameon=False, fontsize=9, loc='lower left', bbox_to_anchor=(0, 1.01), borderaxespad=0,
    columnspacing=1.4, handlelength=1.6, labelspacing=0.3,
)  # fmt: skip
_WEIGHTS = dict(marker='D', ls='', ms=5.5, color='white', mec=_INK, mew=1.2)
_TALL = 0.2  # of a bar that has room for its figure
_FEW = 14  # layers up to which every bar gets its figure


def draw_sparsity(analysis: SparsityAnalysis, path: str | os.PathLike[str]) -> None:
    """Write a PNG of three panels; what they show is said in ``docs/sparsity_analysis.md``.

    Args:
        analysis: The figures.
        path: File to write; replaced if it exists, and whole if it is there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.6, 7.6), layout='constrained', facecolor='white')
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08, hspace=0.04, wspace=0.02)
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.12), width_ratios=(1, 1.08))
    _draw_layers(figure.add_subplot(grid[0, :]), analysis)
    _draw_distances(figure.add_subplot(grid[1, 0]), analysis)
    _draw_work(figure.add_subplot(grid[1, 1]), analysis)
    for axes in figure.axes:
        axes.grid(axis='y', color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=9)
        axes.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
    write_whole(Path(path), lambda temporary: figure.savefig(temporary, dpi=_DPI))


def _draw_layers(axes, analysis: SparsityAnalysis) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    places, names, left = [], [], 0.0
    weights = analysis.has_single_weights
    differ, few = analysis.total.paths_differ, len(analysis.layers) <= _FEW
    for stage, part in enumerate(analysis.stages):
        layers = analysis.layers_of(stage)
        colour = _STAGES[stage % len(_STAGES)]
        own = [left + index for index in range(len(layers))]
        for index, (x, layer) in enumerate(zip(own, layers, strict=True)):
            kept = layer.density.density
            axes.bar(x, kept, 0.8, color=_tinted(colour, 1.0 if index == 0 else _TINT))
            if few:
                _label_bar(axes, x, layer, first=index == 0, weights=weights)
            if weights:
                axes.plot(x, layer.density.weight_density, **_WEIGHTS)
            if differ:
                paths = [path.density for path in layer.paths]
                axes.plot(
                    [x] * len(paths), paths, '_', color=_INK, markersize=9, markeredgewidth=1.3
                )
        axes.hlines(part.density.density, own[0] - 0.4, own[-1] + 0.4, color=_INK, lw=0.9, ls=':')
        axes.text(
            (own[0] + own[-1]) / 2, 1.03, f'stage {stage}: {part.density.density:.1%}',
            ha='center', va='bottom', fontsize=10, color=colour, fontweight='bold',
        )  # fmt: skip
        places += own
        names += [str(index) for index in range(len(layers))]
        left = own[-1] + 1 + _GAP
    axes.set_xticks(places, names)
    if not few:
        axes.tick_params(axis='x', labelsize=7)
    axes.set_xlim(-0.7, places[-1] + 0.7)
    axes.set_ylim(0, 1.0)
    axes.set_xlabel('block of the stage')
    axes.set_ylabel('small kernels kept')
    axes.set_title('Density per layer', **_TITLE, pad=24)
    handles = [
        Patch(color=_SOFT, label='first layer of a stage'),
        Patch(color=_tinted(_SOFT, _TINT), label='other layers'),
        Line2D([], [], color=_INK, ls=':', lw=0.9, label='stage'),
    ]
    if differ:
        handles.append(
            Line2D([], [], color=_INK, marker='_', ls='', markersize=9, label='single paths')
        )
    if weights:
        handles.append(Line2D([], [], **_WEIGHTS, label='single weights'))
    axes.legend(
        handles=handles, ncols=len(handles), frameon=False, fontsize=9, loc='lower right',
        bbox_to_anchor=(1, 1.09), borderaxespad=0, columnspacing=1.4, handlelength=1.4,
    )  # fmt: skip


def _label_bar(axes, x: float, layer: Part, first: bool, weights: bool) -> None:
    kept = layer.density.density
    inside = kept >= _TALL
    above_marker = layer.density.weight_density + 0.1 if weights else 0.0
    axes.text(
        x, max(kept / 2, above_marker) if inside else kept + 0.06, f'{kept:.1%}',
        ha='center', va='center', fontsize=9, fontweight='bold' if first else 'normal',
        color='white' if first and inside else _INK,
    )  # fmt: skip


def _draw_distances(axes, analysis: SparsityAnalysis) -> None:
    from matplotlib.lines import Line2D

    stages = analysis.stages
    farthest = max(max(part.by_distance()) for part in stages)
    aside = farthest * 1.1 + 1
    lowest = 1.0
    for stage, part in enumerate(stages):
        colour, marker = _STAGES[stage % len(_STAGES)], _MARKERS[stage % len(_MARKERS)]
        found = part.by_distance()
        kept = [placed.density for placed in found.values()]
        blocks = [placed.block_density for placed in found.values()]
        label = f'stage {stage}, M = {analysis.network.big_kernels[stage]}'
        axes.plot(list(found), kept, '-', marker=marker, color=colour, ms=4, lw=1.5, label=label)
        axes.plot(list(found), blocks, '--', color=colour, lw=1.1)
        axes.plot(
            aside + (stage - (len(stages) - 1) / 2) * farthest * 0.022, part.identity.density,
            marker=marker, color=colour, ms=5, ls='',
        )  # fmt: skip
        lowest = min(lowest, *kept, part.identity.density)
    axes.axvline((farthest + aside) / 2, color=_GRID, lw=1)
    step = 5 if farthest > 12 else 2
    ticks = list(range(0, farthest + 1, step))
    axes.set_xticks([*ticks, aside], [*map(str, ticks), 'identity'])
    axes.set_xlim(-0.03 * farthest, aside + 0.09 * farthest)
    bottom = max(0, int(lowest * 10 - 0.5)) / 10
    axes.set_ylim(bottom, 1.02)
    axes.set_xlabel("distance from the centre, in positions of the stage's map")
    axes.set_ylabel('share left')
    axes.set_title('Density by distance', **_TITLE, pad=38)
    handles, _ = axes.get_legend_handles_labels()
    handles += [
        Line2D([], [], color=_SOFT, lw=1.5, label='kernels kept'),
        Line2D([], [], color=_SOFT, lw=1.1, ls='--', label='blocks not empty'),
    ]
    axes.legend(handles=handles, ncols=3, **_LEGEND)


def _draw_work(axes, analysis: SparsityAnalysis) -> None:
    parts = [*analysis.stages, analysis.total]
    names = [*(f'stage {stage}' for stage in range(len(parts) - 1)), 'in all']
    series: list[tuple[str, str, Sequence[float]]] = [
        ('kernels kept', _KEPT, [part.density.density for part in parts])
    ]
    if analysis.has_single_weights:
        weights = [part.density.weight_density for part in parts]
        series.append(('single weights kept', _SINGLE, weights))
    if analysis.total.paths_differ:
        covered = [part.covered_density for part in parts]
        series.append(('kept by some path', _COVERED, covered))
    series.append(('multiply-adds left', _WORK, [part.work_left for part in parts]))
    width = 0.8 / len(series)
    for index, (label, colour, values) in enumerate(series):
        xs = [x + (index - (len(series) - 1) / 2) * width for x in range(len(parts))]
        axes.bar(xs, values, width * 0.92, color=colour, label=label)
        for x, value in zip(xs, values, strict=True):
            axes.text(
                x,
                value + 0.012,
                _percent(value),
                ha='center',
                va='bottom',
                fontsize=7.2,
                color=_INK,
            )
    axes.axvline(len(parts) - 1.5, color=_GRID, lw=1)
    axes.set_xticks(range(len(parts)), names)
    axes.set_ylim(0, 1.06)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_ylabel('share left')
    reps = analysis.network.num_reps
    axes.set_title(f'Work beside density, R = {reps}', **_TITLE, pad=38)
    axes.legend(ncols=len(series), **_LEGEND)


def _tinted(colour: str, strength: float) -> tuple[float, ...]:
    """A colour mixed with white, so that no grid shines through."""
    from matplotlib.colors import to_rgb

    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def _percent(share: float) -> str:
    """Without digits that a bar cannot show, but never 100 where something is gone."""
    text = f'{share:.0%}'
    return '>99%' if text == '100%' and share < 1 else text
