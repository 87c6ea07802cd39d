"""The look that the pictures of all benchmarks of training share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmsw.whole_file import write_whole

# Okabe and Ito's colours, which most readers with colour-blindness tell apart.
GREY, BLUE, RED, GREEN = '#7f7f7f', '#0072b2', '#d55e00', '#009e73'
_DPI = 130


@contextmanager
def picture(
    path: Path, size: tuple[float, float], rows: int, widths: Sequence[float]
) -> Iterator[Any]:
    """Give panels to draw in, then write the picture, whole or not at all.

    Args:
        path: Picture to write.
        size: Width and height, in inches.
        rows: Rows of panels.
        widths: Relative widths of the panels of a row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout='constrained', facecolor='white')
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    yield panels
    for axes in panels.flat:
        axes.grid(axis='y', color='#dddddd', linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=_DPI))
