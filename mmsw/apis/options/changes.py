"""What an option changes in a config: written down, and said once."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from mmengine.logging import print_log

from mmsw.wording import listed

_MOST_SHOWN = 8


class Changes:
    """Values of a config that an option replaces.

    A dict that several keys of a config share is changed once.

    Attributes:
        places: Dotted key -> new value, in order.
    """

    def __init__(self) -> None:
        self.places: dict[str, Any] = {}
        self._done: set[tuple[int, str]] = set()

    def set(self, item: Any, key: str, value: Any, path: str) -> None:
        """Replace a value.

        Args:
            item: Dict of the config.
            key: Key in it.
            value: New value; nothing is written down if it is the old one.
            path: Dotted key of the dict, ``''`` at the top.
        """
        if (id(item), key) in self._done:
            return
        self._done.add((id(item), key))
        if item.get(key) != value:
            item[key] = value
            self.places[f'{path}.{key}' if path else key] = value

    def say(self, option: str, beside: Collection[str] = ()) -> None:
        """Say what was changed, if something was.

        Args:
            option: The option and its value, as a user writes it.
            beside: Dotted keys that the user sets himself, which replace what is set here.
        """
        shown = [f'{path}={value}' for path, value in self.places.items() if path not in beside]
        if shown:
            count = 'one place' if len(shown) == 1 else f'{len(shown)} places'
            text = f'{option}: set in {count}: {listed(shown, _MOST_SHOWN)}'
            print_log(text, 'current', logging.INFO)
