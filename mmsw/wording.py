"""Pieces of messages: some of many names, another error in one line, names of units."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import islice

_OBJECT = re.compile(r'\s*<_io\.\w+ object at 0x[0-9a-f]+>')  # tells a user nothing
# Names of 10^6 and 10^9 multiply-adds, by the power.
MAC_UNITS = {6: 'MMAC', 9: 'GMAC'}
_MANY_MACS = 10**10


def listed(names: Collection[str], most: int = 4) -> str:
    """The first names and the number of the others.

    Args:
        names: Names in the order to show them in.
        most: How many to show, at least one.

    Returns:
        For instance ``'a, b and 3 more'``; ``'none'`` if there are no names.
    """
    shown = ', '.join(islice(names, most))
    rest = len(names) - most
    return f'{shown} and {rest} more' if rest > 0 else shown or 'none'


def short(error: BaseException, most: int = 200) -> str:
    """Type and message of an error, without line breaks.

    Args:
        error: Any error.
        most: Characters of the message to show.

    Returns:
        For instance ``'ValueError: expected 3 channels, got 4'``; the type alone if the error has
        no message.
    """
    text = ' '.join(_OBJECT.sub('', str(error)).split())[:most]
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def mac_power(macs: int) -> int:
    """The power of ten, a key of ``MAC_UNITS``, in which to print up to so many of them."""
    return 9 if macs >= _MANY_MACS else 6
