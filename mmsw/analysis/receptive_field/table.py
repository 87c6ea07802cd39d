"""Receptive fields as text: the squares of each network, below each other."""

from __future__ import annotations

from collections.abc import Mapping

from mmsw.text_table import text_table

from .area import Square

_TITLES = {
    'scores': 'Share of the image in the square that holds this share of the scores',
    'log_scores': "The same of log10(1 + scores), as RepLKNet's script counts",
}


def squares_table(squares: Mapping[str, Mapping[str, Mapping[float, Square]]]) -> str:
    """The share of the area and the side of every square.

    Args:
        squares: Kind of the scores, ``'scores'`` or ``'log_scores'`` -> name of a network ->
            share -> square.
    """
    return '\n\n'.join(_block(_TITLES[kind], found) for kind, found in squares.items())


def _block(title: str, networks: Mapping[str, Mapping[float, Square]]) -> str:
    shares = next(iter(networks.values()))
    head = ['', *(f'{share:.0%}' for share in shares), 'sides of the squares in pixels']
    rows = [
        [
            name,
            *(f'{square.area_ratio:.1%}' for square in found.values()),
            ', '.join(str(square.side) for square in found.values()),
        ]
        for name, found in networks.items()
    ]
    return f'{title}\n{text_table(head, rows)}'
