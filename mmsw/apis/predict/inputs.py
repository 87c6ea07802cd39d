"""What is to be predicted: image files, folders, patterns, videos, a camera; and their names."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from mmsw.errors import DataError, UsageError

IMAGE_SUFFIXES = (
    '.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.jp2', '.ppm', '.pgm',
)  # fmt: skip
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.gif')
_CAMERA = re.compile(r'camera:(\d+)')
_WILD = re.compile(r'[*?\[]')


@dataclass(frozen=True)
class Source:
    """One thing to predict.

    Attributes:
        path: File or address; ``'camera:0'`` for a camera.
        name: What outputs are named after: a relative path with ``/``, unlike those of all others.
        kind: ``'image'``, ``'video'`` or ``'camera'``.
    """

    path: str
    name: str
    kind: str = 'image'


def find_sources(
    inputs: Sequence[str | os.PathLike[str]], skip: Sequence[Path] = ()
) -> list[Source]:
    """Find what inputs stand for.

    Args:
        inputs: Image or video files, addresses of images, folders, which are searched with the
            folders in them, patterns such as ``'data/**/*.jpg'``, or ``'camera:0'`` alone. In a
            folder, files of other suffixes, and what is hidden, is left out.
        skip: Folders to leave out, wherever they are found.

    Returns:
        In the order of the inputs, those of a folder or a pattern by name; no file twice. Names are
        paths below the folder that was given, or below the part of a pattern before its first
        wildcard. Where two names are equal, all are paths below the folder that they share.

    Raises:
        UsageError: If an input stands for nothing, or a camera is not the only input.
        DataError: If a file is not there.
    """
    if not inputs:
        raise UsageError('nothing to predict: name images, folders, patterns, videos or a camera')
    cameras = [text for text in map(os.fspath, inputs) if _CAMERA.fullmatch(text)]
    if cameras:
        if len(inputs) > 1:
            raise UsageError(f'{cameras[0]} goes on until it is stopped: give no other input')
        return [Source(cameras[0], cameras[0].replace(':', '_'), 'camera')]
    hidden = {folder.resolve() for folder in skip}
    found: dict[str, tuple[str, str]] = {}  # where it really is -> path, name
    for item in inputs:
        for path, name in _expand(os.fspath(item), hidden):
            found.setdefault(path if '://' in path else os.path.realpath(path), (path, name))
    return [
        Source(path, name, 'video' if _is_video(path) else 'image')
        for path, name in _told_apart(list(found.values()))
    ]


def _expand(item: str, hidden: set[Path]) -> Iterator[tuple[str, str]]:
    """Paths and names of one input."""
    if '://' in item:
        yield item, item.rsplit('/', 1)[1] or item
    elif os.path.isdir(item):
        inside = list(_walk(Path(item), hidden))
        if not inside:
            raise UsageError(
                f'folder {item} has no image or video in it: searched for {_known()} in it and in '
                'its folders'
            )
        yield from ((str(path), path.relative_to(item).as_posix()) for path in inside)
    elif _WILD.search(item) and not os.path.lexists(item):
        yield from _matching(item, hidden)
    elif os.path.isfile(item):
        yield item, os.path.basename(item)
    else:
        raise DataError(
            f'{item} does not exist (working folder: {Path.cwd()}): expected an image, a folder, a '
            'quoted pattern, a video, or camera:0'
        )


def _matching(pattern: str, hidden: set[Path]) -> Iterator[tuple[str, str]]:
    """What a pattern matches; folders are searched where it does not match files."""
    parts = Path(pattern).parts
    fixed = next(place for place, part in enumerate(parts) if _WILD.search(part))
    root = Path(*parts[:fixed])
    suffix = PurePath(pattern).suffix
    any_suffix = bool(suffix) and not _WILD.search(suffix)  # the user has chosen
    matches = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]
    files = [
        path
        for path in matches
        if path.is_file() and (any_suffix or _is_known(path)) and not hidden & _above(path)
    ]
    if not files:
        folders = [path for path in matches if path.is_dir()]
        files = [file for folder in folders for file in _walk(folder, hidden)]
    if not files:
        what = 'no image or video among its matches' if matches else 'no match'
        raise UsageError(f'pattern {pattern} has {what} (working folder: {Path.cwd()})')
    yield from ((str(path), path.relative_to(root).as_posix()) for path in files)


def _above(path: Path) -> set[Path]:
    return set(path.resolve().parents)


def _walk(root: Path, hidden: set[Path]) -> Iterator[Path]:
    """Images and videos in a folder and its folders, by name; links are followed once."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or Path(real) in hidden:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith('.') and _is_known(path):
                yield path


def _told_apart(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Paths and names; names are longer where some would be equal."""
    counts = Counter(name.casefold() for _, name in found)
    if all(count == 1 for count in counts.values()):
        return found
    places = [
        Path(os.sep, path.split('://', 1)[1]) if '://' in path else Path(os.path.abspath(path))
        for path, _ in found
    ]
    common = os.path.commonpath([place.parent for place in places])
    return [
        (path, place.relative_to(common).as_posix())
        for (path, _), place in zip(found, places, strict=True)
    ]


def _is_video(path: str) -> bool:
    return PurePath(path).suffix.lower() in VIDEO_SUFFIXES


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


def _known() -> str:
    return ', '.join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
