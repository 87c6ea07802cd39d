"""Files that are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path


class WholeFile:
    """A file that is written under a temporary name, and gets its own when it is whole.

    Args:
        path: Its own name; its folder is created.

    Attributes:
        temporary: Where to write to, beside ``path``; it ends as ``path`` does.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._folder = tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent)
        self.temporary = Path(self._folder.name, path.name)

    def finish(self) -> None:
        """Give the file its own name; it replaces one that is there."""
        os.replace(self.temporary, self._path)
        self._folder.cleanup()

    def abandon(self) -> None:
        """Leave nothing, unless the file is finished."""
        self._folder.cleanup()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it to ``path``.

    Args:
        path: Destination; its folder is created.
        write: Called with the name to write to; it ends as that of ``path`` does.
    """
    file = WholeFile(path)
    try:
        write(file.temporary)
        file.finish()
    finally:
        file.abandon()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; see :func:`write_whole`."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding='utf-8'))


def write_pair(first: Path, second: Path, write: Callable[[Path, Path], object]) -> None:
    """Let ``write`` fill two files, then give both their names; ``second`` is there last.

    Args:
        first: Destination of a file that ``second`` needs.
        second: Destination of the other one, in the same folder, which is created. Whenever it is
            there, ``first`` is that of the same call.
        write: Called with the names to write to, which end as those of the destinations do.
    """
    first.parent.mkdir(parents=True, exist_ok=True)
    prefix = f'.{second.name}.'
    with tempfile.TemporaryDirectory(prefix=prefix, dir=first.parent) as folder:
        write(Path(folder, first.name), Path(folder, second.name))
        put_files(Path(folder), (first, second))


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder beside a file that is to be.

    Args:
        path: The file. Folders that are made for it go again, unless something is in them then.

    Yields:
        The folder, from where :func:`put_files` can move what is whole.
    """
    made = [place for place in (path.parent, *path.parent.parents) if not place.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as folder:
            yield Path(folder)
    finally:
        with contextlib.suppress(OSError):  # somebody wrote there
            for place in made:
                place.rmdir()


def put_files(folder: Path, files: Sequence[Path]) -> None:
    """Move files that belong together from a folder to their places.

    Args:
        folder: Has a file of each name, on the same disk.
        files: Destinations. Whenever the last one is there, the others are of the same call.
    """
    *others, last = files
    if others:
        last.unlink(missing_ok=True)
    for file in files:
        os.replace(folder / file.name, file)
