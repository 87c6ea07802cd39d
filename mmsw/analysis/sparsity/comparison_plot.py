"""The picture of two checkpoints against each other: density of both, and what they share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmsw.figure import GRID, INK, SOFT, STAGES, picture, tinted, title

from .comparison import Shared, SparsityComparison

_GAP = 0.9  # between the stages, in layers
_LONGEST_NAME = 30
_FIRST = 0.45  # strength of the colour of the first checkpoint
_PARTS = (('both', 1.0), ('only A', 0.6), ('only B', 0.3), ('neither', 0.08))  # and how strong
_ABOVE = dict(loc='lower right', bbox_to_anchor=(1, 1.13), borderaxespad=0.2, columnspacing=1.2,
              handlelength=1.5, handletextpad=0.5)  # fmt: skip


def draw_comparison(comparison: SparsityComparison, path: str | os.PathLike[str]) -> None:
    """Write two panels; what they show is said in ``docs/sparsity_analysis.md``.

    Args:
        comparison: The figures.
        path: Picture to write, as SVG and as PNG; replaced if it exists, and whole if it is there.
    """
    with picture(Path(path), 5.0) as figure:
        panels = figure.subplot_mosaic([['a'], ['b']], height_ratios=(1, 1))
        _draw_density(panels['a'], comparison)
        _draw_shared(panels['b'], comparison)
        for axes in panels.values():
            axes.grid(axis='y')
            axes.set_ylim(0, 1.04)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
            axes.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')


def _draw_density(axes: Any, comparison: SparsityComparison) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    weights = comparison.has_single_weights
    for x, colour, part in _places(axes, comparison):
        for side, strength, shift in ((part.first, _FIRST, -0.2), (part.second, 1.0, 0.2)):
            axes.bar(x + shift, side.density, 0.38, color=tinted(colour, strength))
            if weights:
                axes.plot(x + shift, side.weight_density, marker='_', color=INK, ms=7, mew=1.2)
    axes.set_ylabel('filters kept')
    title(axes, 'a', 'Density per layer', pad=18)
    handles = [
        Patch(color=tinted(SOFT, _FIRST), label=f'A: {_name(comparison.first.source)}'),
        Patch(color=SOFT, label=f'B: {_name(comparison.second.source)}'),
    ]
    if weights:
        look = dict(marker='_', color=INK, ms=7, mew=1.2, ls='')
        handles.append(Line2D([], [], **look, label='single weights'))
    axes.legend(handles=handles, ncols=len(handles), **_ABOVE)


def _draw_shared(axes: Any, comparison: SparsityComparison) -> None:
    from matplotlib.patches import Patch

    for x, colour, part in _places(axes, comparison):
        below = 0.0
        counts = (part.both, part.only_first, part.only_second, part.neither)
        for (_, strength), count in zip(_PARTS, counts, strict=True):
            share = count / part.first.total
            axes.bar(x, share, 0.76, bottom=below, color=tinted(colour, strength))
            below += share
    axes.set_xlabel('block of the stage')
    axes.set_ylabel('share of the filters')
    title(axes, 'b', 'Which checkpoint keeps a filter', pad=18)
    handles = [Patch(color=tinted(SOFT, strength), label=label) for label, strength in _PARTS]
    axes.legend(handles=handles, ncols=len(handles), **_ABOVE)


def _places(axes: Any, comparison: SparsityComparison) -> list[tuple[float, str, Shared]]:
    """Where each layer stands and in which colour; stages stand apart and are named."""
    found, names, left = [], [], 0.0
    for stage in range(len(comparison.stages)):
        layers, colour = comparison.layers_of(stage), STAGES[stage % len(STAGES)]
        found += [(left + index, colour, layer) for index, layer in enumerate(layers)]
        names += [str(index) for index in range(len(layers))]
        middle = left + (len(layers) - 1) / 2
        axes.text(
            middle, 1.05, f'stage {stage}', ha='center', va='bottom', color=colour,
            fontweight='bold',
        )  # fmt: skip
        left += len(layers) + _GAP
        if stage + 1 < len(comparison.stages):
            axes.axvline(left - (1 + _GAP) / 2, color=GRID, lw=1)
    axes.set_xticks([x for x, _, _ in found], names)
    axes.set_xlim(-0.7, found[-1][0] + 0.7)
    return found


def _name(source: str) -> str:
    """The file alone; the start of a very long name is left out."""
    name = Path(source).name
    return name if len(name) <= _LONGEST_NAME else f'...{name[-_LONGEST_NAME:]}'
