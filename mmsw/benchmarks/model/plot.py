"""The picture of a benchmark of whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..plot import GREY, picture
from ..words import number
from .kinds import KINDS
from .networks import MODES
from .rows import Row, setting_of, title

# Okabe and Ito's colours, and grey for what is left.
_COLOURS = ('#0072b2', '#009e73', '#e69f00', '#cc79a7', '#d55e00', '#56b4e9', GREY)


def draw(result: dict, path: Path) -> None:
    """Time by kind of work and the floor, for the last crop with its smallest batch, per mode."""
    panels = [found for mode in MODES if (found := _shown(result['rows'], mode))]
    if not panels:
        return
    most = max(len(rows) for rows in panels)
    size = (6.5 * len(panels), 1.8 + 0.34 * most)
    with picture(path, size, 1, [1.0] * len(panels)) as axes:
        for axis, rows in zip(axes[0], panels, strict=True):
            _bars(axis, rows)
        handles, labels = axes[0][0].get_legend_handles_labels()
        axes[0][0].figure.legend(
            handles,
            labels,
            loc='outside lower center',
            ncols=4 * len(panels),
            frameon=False,
            fontsize=8,
        )


def _shown(rows: Sequence[Row], mode: str) -> list[Row]:
    found = [row for row in rows if row['mode'] == mode and row['dtype'] == rows[0]['dtype']]
    if not found:
        return []
    crop = max(row['crop'] for row in found)
    batch = min(row['batch'] for row in found if row['crop'] == crop)
    last = next(row for row in found if (row['crop'], row['batch']) == (crop, batch))
    shown = [row for row in found if setting_of(row) == setting_of(last)]
    return sorted(shown, key=lambda row: -row['median_ms'])


def _bars(axis: Any, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    start = [0.0] * len(rows)
    for kind, colour in zip(KINDS, _COLOURS, strict=True):
        parts = [row['median_ms'] * row['shares'].get(kind, 0.0) for row in rows]
        axis.barh(places, parts, left=start, color=colour, label=kind, height=0.72)
        start = [before + part for before, part in zip(start, parts, strict=True)]
    floors = [row['floor_ms'] for row in rows]
    axis.plot(floors, places, '|', color='black', markersize=13, markeredgewidth=2, label='floor')
    for place, row in zip(places, rows, strict=True):
        text = f'  {number(row["median_ms"])} ({number(row["ratio"])} x floor)'
        end = max(row['median_ms'], row['floor_ms'])
        axis.text(end, place, text, va='center', fontsize=8)
    axis.set_yticks(places, [row['name'] for row in rows], fontsize=8.5)
    axis.set_xlim(0, 1.35 * max(row['median_ms'] for row in rows))
    axis.set_xlabel('ms')
    axis.set_title(title(setting_of(rows[0])), fontsize=9.5, loc='left')
    for side in ('top', 'right'):
        axis.spines[side].set_visible(False)
