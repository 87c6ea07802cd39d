"""The picture of what is pruned in any network: density of each layer, of one file or of two."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsw.figure import GRID, INK, SOFT, STAGES, picture, tinted, title
from mmsw.sparsity import Density
from mmsw.sparsity.parts import by_part

from .any_comparison import NetworkComparison
from .any_network import NetworkSparsity

_GAP = 1.5  # between the parts, in layers
_FIRST = 0.4  # strength of the colour of the first of two files
_FILTERS = dict(marker='_', color=INK, ms=4, mew=1.0, ls='')
_ABOVE = dict(loc='lower right', bbox_to_anchor=(1, 1.0), borderaxespad=0.2, columnspacing=1.2,
              handlelength=1.5, handletextpad=0.5)  # fmt: skip


def draw_network(found: NetworkSparsity, path: str | os.PathLike[str]) -> None:
    """Write a bar for each layer, the share of its weights that is kept, with a mark for filters.

    Args:
        found: The layers.
        path: Picture to write, as SVG and as PNG; replaced if it exists, and whole if it is there.
    """
    _draw({layer.name: (layer.density,) for layer in found.layers}, path, 'Density per layer')


def draw_networks(comparison: NetworkComparison, path: str | os.PathLike[str]) -> None:
    """Write two bars for each layer that two files have, the first file's pale.

    Args:
        comparison: The layers.
        path: As :func:`draw_network`.
    """
    pairs = {name: (part.first, part.second) for name, part in comparison.layers.items()}
    _draw(pairs, path, 'Density per layer, A pale and B in full colour')


def _draw(
    layers: Mapping[str, tuple[Density, ...]], path: str | os.PathLike[str], text: str
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    with picture(Path(path), 3.4) as figure:
        axes = figure.subplots()
        _draw_layers(axes, layers)
        axes.grid(axis='y')
        axes.set_ylim(0, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
        axes.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
        axes.set_ylabel('kept')
        title(axes, 'a', text)
        handles = [Patch(color=SOFT, label='weights'), Line2D([], [], **_FILTERS, label='filters')]
        axes.legend(handles=handles, ncols=2, **_ABOVE)


def _draw_layers(axes: Any, layers: Mapping[str, tuple[Density, ...]]) -> None:
    """Parts stand apart and are named below."""
    left, places, names = 0.0, [], []
    for index, (part, own) in enumerate(by_part(layers).items()):
        colour = STAGES[index % len(STAGES)]
        for place, name in enumerate(own):
            sides = layers[name]
            width = 0.8 / len(sides)
            for side, density in enumerate(sides):
                x = left + place + (side - (len(sides) - 1) / 2) * width
                strength = 1.0 if side + 1 == len(sides) else _FIRST
                look = dict(color=tinted(colour, strength))
                axes.bar(x, density.weight_density, width, **look)
                axes.plot(x, density.density, **_FILTERS)
        places.append(left + (len(own) - 1) / 2)
        names.append(part)
        left += len(own) + _GAP
        axes.axvline(left - (1 + _GAP) / 2, color=GRID, lw=0.7)
    axes.set_xticks(places, names, rotation=30, ha='right')
    axes.set_xlim(-1, left - _GAP)
