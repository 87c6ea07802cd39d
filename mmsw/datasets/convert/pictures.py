"""Finding the picture that an annotation file means, and its size."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from mmsw.errors import UnfitError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_ORIENTATION = 0x0112
_QUARTER_TURNS = range(5, 9)


def files_below(folder: Path, suffixes: str | tuple[str, ...]) -> Iterator[Path]:
    """Files of some endings in a folder and its folders, sorted; hidden ones are left out."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(('.', '__MACOSX')))
        for name in sorted(names):
            if name.lower().endswith(suffixes) and not name.startswith('.'):
                yield Path(place, name)


def clean_name(given: str) -> PurePosixPath:
    """A path as an annotator wrote it, perhaps on Windows, without what leads out of its folder."""
    parts = PurePosixPath(given.strip().replace('\\', '/')).parts
    absolute = given.startswith(('/', '\\')) or re.match(r'[A-Za-z]:', given)
    kept = [part for part in parts if part not in ('/', '.', '..')]
    return PurePosixPath(*(kept[-1:] if absolute else kept))


class Pictures:
    """The pictures in some folders.

    Args:
        folders: Where to look, in these and the folders in them.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in dict.fromkeys(
            item for folder in self._folders for item in files_below(folder, SUFFIXES)
        ):
            self._by_name.setdefault(path.name.lower(), []).append(path)
            self._by_stem.setdefault(path.stem.lower(), []).append(path)

    def __contains__(self, path: Path) -> bool:
        return path in self._by_name.get(path.name.lower(), ())

    def elsewhere(self, folder: Path) -> bool:
        """Whether the pictures were looked for in other folders than this one."""
        return folder not in self._folders

    def leave_out(self, paths: Iterable[Path]) -> None:
        """Take files for no pictures, since they are something else."""
        for path in paths:
            for names, key in ((self._by_name, path.name), (self._by_stem, path.stem)):
                if path in names.get(key.lower(), ()):
                    names[key.lower()].remove(path)

    def find(self, names: Iterable[PurePosixPath | str], near: Path, hint: str = '') -> Path | None:
        """The picture of the first name that there is.

        Args:
            names: Paths or the ends of paths. Their letters may be large or small, and their
                endings may be missing or others.
            near: Folder that a relative path may begin in.
            hint: Name of a folder to prefer where several pictures have the name.

        Returns:
            The file; ``None`` if there is none.

        Raises:
            UnfitError: If several pictures have the name.
        """
        for name in map(PurePosixPath, names):
            if name.suffix.lower() in SUFFIXES and (near / name).is_file():
                return near / name
        for name in map(PurePosixPath, names):
            known = name.suffix.lower() in SUFFIXES
            found = self._by_name.get(name.name.lower(), ()) if known else ()
            found = found or self._by_stem.get((name.stem if known else name.name).lower(), ())
            if found:
                return _only(found, name, hint)
        return None


def _only(found: list[Path], name: PurePosixPath, hint: str) -> Path:
    """The one whose folders are most like those of the name, then one in the folder of the hint."""
    for wanted in (name.parent.parts, (hint,) if hint else ()):
        if len(found) > 1 and wanted:
            shared = [_shared(path, wanted) for path in found]
            found = [
                path for path, number in zip(found, shared, strict=True) if number == max(shared)
            ]
    if len(found) > 1:
        raise UnfitError(f'{len(found)} pictures have this name')
    return found[0]


def _shared(path: Path, wanted: tuple[str, ...]) -> int:
    """How many of the folders, from the last on, the path has as well."""
    number = 0
    for mine, other in zip(reversed(path.parent.parts), reversed(wanted), strict=False):
        if mine.lower() != other.lower():
            break
        number += 1
    return number


def size_of(picture: Path | bytes) -> tuple[int, int]:
    """Height and width of a picture, turned as its EXIF data say; only its header is read.

    Raises:
        UnfitError: If it is no picture.
    """
    from PIL import Image  # as in mmcv

    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
            width, height = opened.size
            turn = opened.getexif().get(_ORIENTATION)
    except Exception as error:  # whatever a decoder raises
        raise UnfitError('the picture cannot be read') from error
    return (width, height) if turn in _QUARTER_TURNS else (height, width)


def check_size(stated: tuple[int, int], found: tuple[int, int]) -> None:
    """Raise if an annotation is for a picture of another height and width."""
    if stated == found:
        return
    if stated == found[::-1]:
        raise UnfitError('the annotation is for the picture before its EXIF data turn it')
    raise UnfitError('the annotation states another size than the picture has')
