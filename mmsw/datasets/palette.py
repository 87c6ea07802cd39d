"""Colours that are easy to tell apart."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

# The first ones are chosen by eye; the others go around the circle of hues.
_FIRST = [
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (255, 225, 25),
    (145, 30, 180),
    (245, 130, 48),
    (70, 240, 240),
    (240, 50, 230),
    (170, 110, 40),
    (250, 190, 212),
]
_GOLDEN = 0.618033988749895  # of a circle: never comes back to a hue
_SHADES = [(0.85, 0.95), (0.55, 0.75), (1.0, 0.55), (0.4, 0.95)]  # saturation and value


def distinct_colors(n: int) -> list[tuple[int, int, int]]:
    """Different colours, the same ones every time; none is black or white.

    Args:
        n: Their number, at most 5000.

    Returns:
        ``n`` RGB triples from 0 to 255. Those of a smaller number are the first of a larger one.

    Raises:
        ValueError: If there are not so many.
    """
    if not 0 <= n <= 5000:
        raise ValueError(f'n must be a number from 0 to 5000, got {n}')
    colors: dict[tuple[int, int, int], None] = {}
    for color in _endless():
        if len(colors) >= n:
            break
        colors[color] = None
    return list(colors)


def _endless() -> Iterator[tuple[int, int, int]]:
    yield from _FIRST
    number = 0
    while True:
        saturation, value = _SHADES[number % len(_SHADES)]
        # rounds through all hues differ a little in value, so that no number of classes is too many
        value -= 0.02 * (number // 300 % 10)
        red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, saturation, value)
        yield round(255 * red), round(255 * green), round(255 * blue)
        number += 1
