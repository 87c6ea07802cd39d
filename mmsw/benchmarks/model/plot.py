"""The picture of a benchmark of whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsw.figure import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, SKY, picture, title

from ..words import number
from .kinds import KINDS
from .networks import MODES
from .rows import Row, setting_of
from .rows import title as setting_title

_COLOURS = (BLUE, GREEN, ORANGE, PURPLE, RED, SKY, GREY)


def draw(result: dict, path: Path) -> bool:
    """Time by kind of work and the floor, for the last crop with its smallest batch, per mode.

    Args:
        result: What ``benchmark.json`` holds; nothing is written where it has no rows.
        path: Picture to write, as SVG and as PNG.

    Returns:
        Whether there was something to draw.
    """
    panels = [found for mode in MODES if (found := _shown(result['rows'], mode))]
    if not panels:
        return False
    most = max(len(rows) for rows in panels)
    order = list(dict.fromkeys(row['name'] for rows in panels for row in rows))
    panels = [sorted(rows, key=lambda row: order.index(row['name'])) for rows in panels]
    with picture(path, 1.6 + 0.24 * most) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, letter, rows in zip(axes, 'abcdef', panels, strict=False):
            _draw_bars(panel, rows)
            text = setting_title(setting_of(rows[0])).capitalize()
            title(panel, letter, text.replace(': ', '\n', 1), fontsize=8.5)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside lower center', ncols=4)
    return True


def _shown(rows: Sequence[Row], mode: str) -> list[Row]:
    found = [row for row in rows if row['mode'] == mode and row['dtype'] == rows[0]['dtype']]
    if not found:
        return []
    crop = max(row['crop'] for row in found)
    batch = min(row['batch'] for row in found if row['crop'] == crop)
    last = next(row for row in found if (row['crop'], row['batch']) == (crop, batch))
    shown = [row for row in found if setting_of(row) == setting_of(last)]
    return sorted(shown, key=lambda row: row['median_ms'])


def _draw_bars(axes: Any, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    start = [0.0] * len(rows)
    for kind, colour in zip(KINDS, _COLOURS, strict=True):
        parts = [row['median_ms'] * row['shares'].get(kind, 0.0) for row in rows]
        axes.barh(places, parts, left=start, color=colour, label=kind, height=0.68)
        start = [before + part for before, part in zip(start, parts, strict=True)]
    floors = [row['floor_ms'] for row in rows]
    axes.plot(floors, places, '|', color=INK, markersize=11, markeredgewidth=1.8, label='floor')
    for place, row in zip(places, rows, strict=True):
        half = row['median_ms'] * row['spread'] / 2
        axes.errorbar(
            row['median_ms'], place, xerr=half, color=INK, capsize=2, linewidth=0.9, capthick=0.9
        )
        text = f' {number(row["median_ms"])} ({number(row["ratio"])})'
        end = max(row['median_ms'] + half, row['floor_ms'])
        axes.text(end, place, text, va='center', fontsize=8)
    axes.set_yticks(places, [row['name'] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.45 * max(row['median_ms'] for row in rows))
    axes.set_xlabel('one call [ms], in brackets over its floor;\nwhiskers: interquartile range')
    axes.grid(axis='x')
    axes.tick_params(axis='y', length=0)
