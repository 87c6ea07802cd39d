"""The picture of a benchmark: final scores with every seed as a point, and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..comparison import Row
from ..plot import BLUE, GREEN, GREY, RED, picture

_COLOURS = {
    'scratch': GREY,
    'scratch-long': '#444444',
    'dense': BLUE,
    'sparse': RED,
    'sparse-unmasked': GREEN,
}
_STYLES = ('-', '--', ':', '-.')


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw final scores and learning curves; nothing is written where nothing is finished.

    Args:
        rows: All rows of the report.
        path: Picture to write, whole or not at all.
    """
    rows = [row for row in rows if row.results]
    scores = list(dict.fromkeys((row.task, score) for row in rows for score in row.scores))
    if not scores:
        return
    with picture(path, (11, 3.6 * len(scores)), len(scores), (1, 1.35)) as panels:
        for (task, score), (left, right) in zip(scores, panels, strict=True):
            own = [row for row in rows if row.task == task and score in row.scores]
            networks = list(dict.fromkeys(row.network for row in own))
            _draw_finals(left, own, score, networks)
            _draw_curves(right, own, score, networks)
            for axes in (left, right):
                axes.set_ylabel(f'{score} [%]')


def _draw_finals(axes, rows: Sequence[Row], score: str, networks: list[str]) -> None:
    labels = []
    for place, row in enumerate(rows):
        values = [result['scores'][score] for result in row.results.values()]
        colour = _COLOURS[row.start]
        spread = row.score(score)
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        axes.plot(place + np.array(offsets), values, 'o', color=colour, alpha=0.55, markersize=6)
        axes.errorbar(
            place + 0.28,
            spread.mean,
            yerr=None if np.isnan(spread.deviation) else spread.deviation,
            fmt='_',
            color=colour,
            markersize=12,
            markeredgewidth=2,
            capsize=4,
        )
        label = row.start.replace('-', '-\n')
        labels.append(label if len(networks) == 1 else f'{label}\n({row.network})')
    small = 9 if len(networks) == 1 else 7
    axes.set_xticks(range(len(rows)), labels, fontsize=small)
    axes.set_xlim(-0.5, len(rows) - 0.2)
    axes.margins(y=0.12)
    axes.set_title('final score: every seed, mean ± standard deviation', fontsize=10)


def _draw_curves(axes, rows: Sequence[Row], score: str, networks: list[str]) -> None:
    for row in rows:
        curves = [result['curve'] for result in row.results.values()]
        iterations = [point['iteration'] for point in curves[0]]
        values = np.array([[point[score] for point in curve] for curve in curves])
        mean = values.mean(0)
        colour = _COLOURS[row.start]
        style = _STYLES[networks.index(row.network) % len(_STYLES)]
        name = row.start if len(networks) == 1 else f'{row.start} ({row.network})'
        axes.plot(iterations, mean, style, color=colour, marker='o', markersize=3, label=name)
        if len(curves) > 1:
            deviation = values.std(0, ddof=1)
            axes.fill_between(
                iterations, mean - deviation, mean + deviation, color=colour, alpha=0.15, lw=0
            )
    axes.set_xlabel('iteration')
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(left=0)
    axes.set_title('learning curves: mean, band of one standard deviation', fontsize=10)
    axes.legend(frameon=False, fontsize=9)
