"""Files that are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside ``path`` to write to; at the end it is renamed to ``path``.

    After an error nothing is left, and what was at ``path`` stays.

    Args:
        path: Destination; its folder is created. The temporary name ends as its name does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as folder:
        temporary = Path(folder, path.name)
        yield temporary
        os.replace(temporary, path)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file, see :func:`whole_file`.

    Args:
        path: Destination; its folder is created.
        write: Called with the name to write to.
    """
    with whole_file(path) as temporary:
        write(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; see :func:`write_whole`."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding='utf-8'))
