"""The picture of a benchmark of transfer: paired differences, and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsw.figure import INK, LINES, MARKERS, SOFT, Style, picture, series_style, style_of, title

from ..comparison import REFERENCE, Row, Spread

_FAR = 4.0  # times as far from zero as all nearer starts reach: told in words
_SCRATCH = 'scratch'  # how the names of starts begin that no checkpoint is behind
_TASKS = {'seg': 'segmentation', 'det': 'detection'}


def draw(rows: Sequence[Row], path: Path) -> bool:
    """Draw differences and learning curves; nothing is written where nothing is finished.

    Args:
        rows: All rows of the report; results may be missing.
        path: Picture to write, as SVG and as PNG.

    Returns:
        Whether there was something to draw.
    """
    rows = [row for row in rows if row.results]
    scores = list(dict.fromkeys((row.task, score) for row in rows for score in row.scores))
    if not scores:
        return False
    styles = _styles(rows)
    most = max(len([row for row in rows if row.task == task]) for task, _ in scores)
    height = 0.75 + len(scores) * max(1.75, 0.85 + 0.24 * most)
    with picture(path, height) as figure:
        panels = figure.subplots(len(scores), 2, squeeze=False, width_ratios=(1.05, 1))
        for (task, score), (left, right) in zip(scores, panels, strict=True):
            own = [row for row in rows if row.task == task and score in row.scores]
            _draw_differences(left, own, score, styles)
            _draw_curves(right, own, score, styles)
            _name_row(left, f'{score}, {_TASKS.get(task, task)}')
        title(panels[0, 0], 'a', _left_title(rows), pad=20)
        title(panels[0, 1], 'b', 'Learning curves', pad=20)
        panels[-1, 0].set_xlabel('percentage points')
        panels[-1, 1].set_xlabel('iteration')
        handles, labels = panels[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside lower center', ncols=min(len(labels), 4))
    return True


def _styles(rows: Sequence[Row]) -> dict[tuple[str, str], Style]:
    """By network and start: a colour per network if they have one start each, else per start."""
    starts = {row.start for row in rows}
    styles = {}
    for row in rows:
        networks = list(dict.fromkeys(other.network for other in rows if other.task == row.task))
        index = networks.index(row.network)
        style = style_of(row.start)
        if len(networks) > 1 and len(starts) == 1:
            style = series_style(index, row.network)
        elif len(networks) > 1:
            label = f'{row.network}, {style.label}'
            mark = MARKERS[index % len(MARKERS)]
            style = Style(style.colour, mark, LINES[index % len(LINES)], label)
        styles[row.network, row.start] = style
    return styles


def _reference(row: Row, rows: Sequence[Row]) -> Row:
    """What a row is compared with, as the report does: dense, else the first start or network."""
    own = [other for other in rows if other.network == row.network]
    if len(own) == 1:
        return rows[0]
    return next((other for other in own if other.start == REFERENCE), own[0])


def _left_title(rows: Sequence[Row]) -> str:
    references = dict.fromkeys(_reference(row, rows).start for row in rows)
    networks = {row.network for row in rows}
    alone = len(networks) == len(rows) > 1 or len(references) > 1
    what = 'the first' if alone else next(iter(references))
    return f'Final score minus {what}, 95% interval'


def _draw_differences(
    axes: Any, rows: Sequence[Row], score: str, styles: dict[tuple[str, str], Style]
) -> None:
    """Differences seed by seed, their means and intervals; what lies far away in words."""
    compared = [row for row in rows if _reference(row, rows) is not row]
    values = {id(row): _differences(row, _reference(row, rows), score) for row in compared}
    far = _far_away(compared, values)
    axes.axvline(0, color=INK, linewidth=1.0)
    for place, row in enumerate(rows):
        style = styles[row.network, row.start]
        if row not in compared:
            text = f'zero: {row.score(score).text()} %'
            axes.annotate(
                text, (0, place), (6, 0), textcoords='offset points', va='center', fontsize=8
            )
            continue
        spread = Spread.of(values[id(row)])
        if row in far:
            text = f'{spread.signed_text()}, off the scale'
            axes.text(0.02, place, text, transform=axes.get_yaxis_transform(), va='center',
                      fontsize=8, color=SOFT)  # fmt: skip
        elif spread.n:
            dots = np.full(spread.n, place + 0.22)
            axes.plot(values[id(row)], dots, '.', color=style.colour, alpha=0.6, markersize=4)
            low, high = spread.interval or (spread.mean, spread.mean)
            axes.errorbar(
                spread.mean, place, xerr=[[spread.mean - low], [high - spread.mean]], capsize=3,
                color=style.colour, marker=style.marker, markersize=6, linewidth=1.4,
            )  # fmt: skip
    labels = [styles[row.network, row.start].label for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.5), max(high, 0.5))
    axes.tick_params(axis='y', length=0)
    axes.grid(axis='x')


def _differences(row: Row, reference: Row, score: str) -> list[float]:
    common = sorted(set(row.results) & set(reference.results))
    return [
        row.results[seed]['scores'][score] - reference.results[seed]['scores'][score]
        for seed in common
    ]


def _far_away(rows: Sequence[Row], values: dict[int, list[float]]) -> list[Row]:
    """Starts from random values that would press all others together."""
    near = [row for row in rows if not row.start.startswith(_SCRATCH)]
    reach = max((_reach(values[id(row)]) for row in near), default=0.0)
    return [
        row
        for row in rows
        if reach and row not in near and values[id(row)]
        and abs(Spread.of(values[id(row)]).mean) > _FAR * reach
    ]  # fmt: skip


def _reach(values: Sequence[float]) -> float:
    spread = Spread.of(values)
    return max(map(abs, spread.interval or [spread.mean])) if spread.n else 0.0


def _draw_curves(
    axes: Any, rows: Sequence[Row], score: str, styles: dict[tuple[str, str], Style]
) -> None:
    """Curves up to the length of most; one that goes on says where it ends."""
    lengths = [_curve(row, score)[0][-1] for row in rows]
    end = max(set(lengths), key=lambda length: (lengths.count(length), -length))
    for row in rows:
        style = styles[row.network, row.start]
        iterations, values = _curve(row, score)
        mean = values.mean(0)
        axes.plot(
            iterations, mean, style.line, color=style.colour, marker=style.marker,
            markersize=3.5, linewidth=1.3, label=style.label,
        )  # fmt: skip
        if len(values) > 1:
            band = values.std(0, ddof=1)
            look = dict(color=style.colour, alpha=0.15, linewidth=0)
            axes.fill_between(iterations, mean - band, mean + band, **look)
        if iterations[-1] > end:
            text = f'{style.label} goes on to\niteration {iterations[-1]}: {mean[-1]:.1f} %'
            here = float(np.interp(end, iterations, mean))
            below = here > 0.4 * mean.max()
            axes.annotate(
                text, (end, here), (0, -6 if below else 6), textcoords='offset points',
                ha='right', va='top' if below else 'bottom', fontsize=8,
            )  # fmt: skip
    axes.set_xlim(0, end * 1.02)
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(f'{score} [%]')
    axes.grid(axis='y')


def _curve(row: Row, score: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations, and a score by seed and iteration."""
    curves = [result['curve'] for result in row.results.values()]
    iterations = np.array([point['iteration'] for point in curves[0]])
    return iterations, np.array([[point[score] for point in curve] for curve in curves])


def _name_row(axes: Any, text: str) -> None:
    """What a row of panels is about, above its first panel."""
    axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=8.5, fontweight='bold', color=SOFT)
