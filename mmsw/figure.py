"""How all figures look: ink, one colour per method, panel letters, and files for light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsw.whole_file import write_text, write_whole

WIDTH = 8.6  # inches: 826 pixels in a browser, which a page shows as they are
INK, SOFT, GRID, PAPER = '#24292f', '#656d76', '#d8dee4', '#fefefe'
# Okabe and Ito's colours, which most readers with colour-blindness tell apart.
BLUE, RED, GREEN, PURPLE = '#0072b2', '#d55e00', '#009e73', '#cc79a7'
SKY, ORANGE, GREY = '#56b4e9', '#e69f00', '#8c8c8c'
STAGES = (BLUE, RED, GREEN, PURPLE, SKY, ORANGE)
MARKERS = ('o', 's', 'D', '^', 'v', 'P')
LINES = ('-', '--', '-.', ':')
# What a dark page shows instead; other colours are seen on both.
_DARK = {INK: '#e6edf3', SOFT: '#9da7b1', GRID: '#343b44', PAPER: '#0d1117', BLUE: '#2a84c4'}
_PNG_DPI = 150
_SMALL, _NORMAL = 8.0, 8.5  # points
_RC = {
    'svg.fonttype': 'path',
    'svg.hashsalt': 'mmsw',
    'font.family': 'DejaVu Sans',  # comes with matplotlib
    'font.size': _NORMAL,
    'axes.titlesize': 9.5,
    'axes.titlelocation': 'left',
    'axes.titleweight': 'bold',
    'axes.labelsize': _NORMAL,
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.linewidth': 0.8,
    'grid.linewidth': 0.7,
    'xtick.labelsize': _SMALL,
    'ytick.labelsize': _SMALL,
    'legend.fontsize': _SMALL,
    'legend.frameon': False,
    'figure.facecolor': 'none',
    'axes.facecolor': 'none',
    'savefig.facecolor': 'none',
    'grid.color': GRID,
    **dict.fromkeys(
        ('text.color', 'axes.labelcolor', 'axes.edgecolor', 'axes.titlecolor', 'xtick.color',
         'ytick.color', 'legend.labelcolor', 'hatch.color', 'lines.color'),
        INK,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a method is drawn wherever it is drawn.

    Attributes:
        colour: Of its lines and marks.
        marker: Of its points.
        line: Style of its lines.
        label: Its name in a legend.
    """

    colour: str
    marker: str
    line: str
    label: str


METHODS = {
    name: Style(colour, marker, line, label)
    for name, colour, marker, line, label in (
        # what a training starts from
        ('scratch', GREY, 'v', ':', 'scratch'),
        ('scratch-long', SOFT, 'X', '-.', 'scratch-long'),
        ('dense', BLUE, 'o', '-', 'dense'),
        ('sparse', RED, 's', '--', 'sparse'),
        ('sparse-unmasked', ORANGE, 'D', '-.', 'sparse-unmasked'),
        ('sparse-distilled', GREEN, '^', '-', 'sparse-distilled'),
        ('config', PURPLE, 'P', '-', 'as configured'),
        # how a training chooses what is pruned
        ('static', SKY, 's', '--', 'static'),
        ('filter', GREEN, 'o', '-', 'dynamic, filters'),
        ('weight', PURPLE, '^', ':', 'dynamic, weights'),
        # what computes the operator
        ('mmsw cpp', BLUE, 'o', '-', 'mmsw cpp'),
        ('mmsw cuda', GREEN, 'o', '-', 'mmsw cuda'),
        ('mmsw taichi', ORANGE, 's', '--', 'mmsw taichi'),
        ('mmsw torch', RED, 'D', '-.', 'mmsw torch'),
        ('folded', SKY, '^', '--', 'folded'),
        ('small conv', GREY, 'v', ':', 'small conv + slices'),
        ('onnxruntime', PURPLE, 'P', ':', 'onnxruntime'),
        ('OpenVINO', PURPLE, 'X', ':', 'OpenVINO'),
        ('SLaK pair', GREY, '^', ':', 'SLaK pair'),
        ('depthwise 7x7', INK, '', '--', '7 x 7 depthwise'),
    )
}


def style_of(name: str) -> Style:
    """Of a method, or of the one whose name it begins with; grey where nothing is known of it."""
    if name.endswith('folded') and name.startswith(('mmsw cpp', 'mmsw cuda')):
        return METHODS['folded']
    known = [
        method
        for method in METHODS
        if name == method or name.startswith((f'{method} ', f'{method},'))
    ]
    return METHODS[max(known, key=len)] if known else Style(GREY, 'o', ':', name)


def series_style(index: int, label: str) -> Style:
    """Of one of several networks, or of whatever has no name of its own; all are different."""
    colours = len(STAGES)
    return Style(
        STAGES[index % colours],
        MARKERS[index % len(MARKERS)],
        LINES[index // colours % len(LINES)],
        label,
    )


@contextmanager
def picture(path: Path, height: float, width: float = WIDTH) -> Iterator[Any]:
    """Give a figure to draw in, then write it as SVG and as PNG, each whole or not at all.

    Args:
        path: One of the two files. The other lies beside it.
        height: In inches.
        width: In inches.
    """
    with figure_of(height, width) as figure:
        yield figure
        save(figure, path.with_suffix('.svg'))
        save(figure, path.with_suffix('.png'))


@contextmanager
def figure_of(height: float, width: float = WIDTH) -> Iterator[Any]:
    """Give a figure of the common look, which must be saved inside of the block."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_RC):
        figure = Figure(figsize=(width, height), layout='constrained')
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03)
        yield figure


def save(figure: Any, path: Path) -> None:
    """Write a figure: SVG without a ground, light and dark; everything else on white.

    The same figure gives the same SVG, byte for byte.

    Args:
        figure: Of :func:`figure_of`.
        path: Its ending says the format; replaced if it exists, and whole if it is there.
    """
    if path.suffix.lower() != '.svg':
        white = dict(dpi=_PNG_DPI, facecolor='white')
        write_whole(path, lambda temporary: figure.savefig(temporary, **white))
        return
    from io import StringIO

    text = StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None, 'Creator': None})
    write_text(path, _adaptive(text.getvalue()))


def _adaptive(svg: str) -> str:
    """Add the colours of a dark page, and take digits away that nobody sees."""
    rules = [
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in _DARK.items()
        for kind in ('fill', 'stroke')
    ]
    style = f'<style>@media (prefers-color-scheme: dark){{{"".join(rules)}}}</style>'
    head, found, body = svg.partition('<defs>')
    body = re.sub(r'(?<=[ LMQC"])(-?\d+\.\d{3,})(?=[ "\n])', _rounded, body)
    return '\n'.join(line.rstrip() for line in f'{head}{style}\n {found}{body}'.splitlines()) + '\n'


def _rounded(match: re.Match[str]) -> str:
    return f'{float(match[1]):.2f}'


def title(axes: Any, letter: str, text: str, **more: Any) -> None:
    """Give a panel its letter and its title: a sentence's beginning, no capitals inside."""
    axes.set_title(f'({letter}) {text}', **more)


def tinted(colour: str, strength: float) -> tuple[float, float, float, float]:
    """A colour that lets the ground through, light or dark."""
    from matplotlib.colors import to_rgba

    return to_rgba(colour, strength)


def apart(number: int, step: float) -> Sequence[float]:
    """Shifts that put some marks side by side around one place."""
    return [(index - (number - 1) / 2) * step for index in range(number)]
