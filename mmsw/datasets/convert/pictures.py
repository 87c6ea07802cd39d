"""Finding the picture that an annotation file means, and its size."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mmsw.errors import UnfitError

from ..orientation import ORIENTATION, QUARTER_TURNS
from .parts import part_of

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


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

    def find(
        self, names: Iterable[PurePosixPath | str], near: Path, part: str | None
    ) -> Path | None:
        """The picture of the first name that there is.

        Args:
            names: Paths or the ends of paths. Their letters may be large or small, and their
                endings may be missing or others.
            near: Folder that a relative path may begin in.
            part: Of the data set; where several pictures have the name, the one in a folder of
                the part is taken.

        Returns:
            The file; ``None`` if there is none.

        Raises:
            UnfitError: If several pictures have the name.
        """
        for name in names:
            if name.suffix.lower() in SUFFIXES and (near / name).is_file():
                return near / name
        for name in names:
            known = name.suffix.lower() in SUFFIXES
            found = self._by_name.get(name.name.lower(), ()) if known else ()
            found = found or self._by_stem.get((name.stem if known else name.name).lower(), ())
            if found:
                return _only(found, name, part)
        return None


def _only(found: list[Path], name: PurePosixPath, part: str | None) -> Path:
    """The one whose folders are most like those of the name, then the one of the part."""
    most = max(_shared(path, name.parent.parts) for path in found)
    found = [path for path in found if _shared(path, name.parent.parts) == most]
    found = [path for path in found if _part_of_folders(path) == part] or found
    if len(found) > 1:
        raise UnfitError(f'{len(found)} pictures have this name')
    return found[0]


def _part_of_folders(path: Path) -> str | None:
    """What the innermost folder that is called so is for."""
    return next(filter(None, map(part_of, reversed(path.parent.parts))), None)


def _shared(path: Path, wanted: tuple[str, ...]) -> int:
    """How many of the folders, from the last on, the path has as well."""
    number = 0
    for mine, other in zip(reversed(path.parent.parts), reversed(wanted), strict=False):
        if mine.lower() != other.lower():
            break
        number += 1
    return number


@contextmanager
def opened(picture: Path | bytes) -> Iterator[Any]:
    """A picture of Pillow, of any size.

    Raises:
        UnfitError: If it is no picture, also while it is read inside.
    """
    from PIL import Image  # as in mmcv

    most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # pictures of satellites are large
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            yield image
    except Exception as error:  # whatever a decoder raises
        raise UnfitError('the picture cannot be read') from error
    finally:
        Image.MAX_IMAGE_PIXELS = most


def size_of(picture: Path | bytes) -> tuple[int, int]:
    """Height and width of a picture, turned as its EXIF data say; only its header is read.

    Raises:
        UnfitError: If it is no picture.
    """
    with opened(picture) as image:
        width, height = image.size
        turn = image.getexif().get(ORIENTATION)
    return (width, height) if turn in QUARTER_TURNS else (height, width)


def check_size(stated: tuple[int, int], found: tuple[int, int]) -> None:
    """Raise if an annotation is for a picture of another height and width."""
    if stated == found:
        return
    if stated == found[::-1]:
        raise UnfitError('the annotation is for the picture before its EXIF data turn it')
    raise UnfitError('the annotation states another size than the picture has')
