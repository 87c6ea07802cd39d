"""Names and colours of the classes of own data."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from mmsw.datasets.palette import distinct_colors
from mmsw.errors import UsageError
from mmsw.wording import listed

from .settings import OwnData


def names_given(own: OwnData) -> tuple[str, ...] | None:
    """The classes that ``own_data`` names, itself or in a text file.

    Returns:
        The names, or ``None`` if it leaves them to the annotation file.

    Raises:
        UsageError: If they are one text, no list of names, or twice the same.
    """
    given = own.classes
    if given is None:
        return None
    names = _from_file(own, given) if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(names, (list, tuple)) or not names:
        raise UsageError(
            f"own_data.classes is {given!r}, expected names, for instance ('road', 'car'), or "
            'the path of a text file with one name per line'
        )
    if any(isinstance(name, (list, tuple, dict)) or name in (None, '') for name in names):
        raise UsageError(f'own_data.classes={given!r} holds something that is no name')
    names = tuple(map(str, names))
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise UsageError(f'own_data.classes names {listed(twice)} more than once')
    return names


def _from_file(own: OwnData, given: Any) -> list[str]:
    text = os.path.expanduser(os.fspath(given))
    places = [text, os.path.join(own.data_root, text)]
    path = next((place for place in places if os.path.isfile(place)), None)
    if path is None:
        if text.endswith('.txt') or '/' in text or os.sep in text:
            raise UsageError(
                f'own_data.classes={text!r}: there is no such file, neither here nor in '
                f'{own.data_root}; expected is a text file with one name per line'
            )
        raise UsageError(
            f'own_data.classes is the text {text!r}, of which every letter would be a class: write '
            f'({text!r},) with a comma, as an option own_data.classes=[{text}]'
        )
    try:
        with open(path, encoding='utf-8-sig') as file:
            names = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeError) as error:
        raise UsageError(f'own_data.classes: {path} cannot be read: {error}') from error
    if not names:
        raise UsageError(f'own_data.classes: {path} has no line with a name')
    return names


def colors_of(own: OwnData, number: int) -> list[tuple[int, int, int]]:
    """The palette that ``own_data`` names, or one that is drawn.

    Args:
        own: Its ``palette``.
        number: Of classes.

    Raises:
        UsageError: If it has another length, or holds no colours.
    """
    if own.palette is None:
        return distinct_colors(number)
    colors = own.palette
    if not isinstance(colors, (list, tuple)) or not all(map(_is_color, colors)):
        raise UsageError(
            'own_data.palette must hold one RGB triple per class, for instance '
            f'[(230, 25, 75), (60, 180, 75)], got {colors!r}'
        )
    if len(colors) != number:
        raise UsageError(
            f'own_data.palette has {len(colors)} colours for {number} classes: list one RGB triple '
            'per class, or set own_data.palette=None, and colours are drawn'
        )
    return [tuple(color) for color in colors]


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(isinstance(item, int) and 0 <= item <= 255 for item in value)
    )
