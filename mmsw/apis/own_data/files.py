"""Folders of own data: what lies in them, and which images are held out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmsw.errors import UsageError
from mmsw.wording import listed

from .settings import OwnData


@dataclasses.dataclass(frozen=True)
class ImageGroup:
    """Images of a folder that end alike, in the order in which mmseg lists them.

    Attributes:
        suffix: How they end, in upper and lower case as in the folder.
        stems: Their paths below the folder, without the suffix.
    """

    suffix: str
    stems: tuple[str, ...]


def is_address(path: str) -> bool:
    """Whether a path leads to another place than this computer."""
    return '://' in path


def is_at_hand(own: OwnData) -> bool:
    """Whether the data root is a folder of this computer that exists."""
    return not is_address(own.data_root) and os.path.isdir(own.data_root or '.')


def check_paths(own: OwnData) -> None:
    """Refuse folders and files that do not lie in a data root that exists.

    A data root that does not exist is not refused here: a config can be read without its data.

    Raises:
        UsageError: If there is one; it names the key and what is there.
    """
    if is_address(own.data_root):
        _check_address(own)
    if not is_at_hand(own):
        return
    for split, parts in own.splits.items():
        for key, path in parts.items():
            whole = own.path(split, key)
            folder = key in ('images', 'labels')
            if is_address(whole) or (os.path.isdir if folder else os.path.isfile)(whole):
                continue
            noun = 'folder' if folder else 'file'
            raise UsageError(
                f'own_data.{split}.{key}={path!r}: there is no {noun} {whole}{_beside(whole)}'
            )


def _check_address(own: OwnData) -> None:
    """Refuse what needs a look at the images, where they are not on this computer."""
    if own.max_iters is None:
        raise UsageError(
            f'own_data.max_iters is empty, and the images in {own.data_root} cannot be counted: '
            'set the number of iterations'
        )
    if own.held_out:
        raise UsageError(
            f'own_data.val={own.held_out} needs to list the images, which lie in {own.data_root}: '
            'name the validation images'
        )


def _beside(path: str) -> str:
    """What lies where something was expected; nothing if its folder is missing too."""
    folder = Path(path).parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(
        f'{item.name}/' if item.is_dir() else item.name
        for item in folder.iterdir()
        if not item.name.startswith('.')
    )
    return f'. In {folder} are {listed(names, 8)}'


def image_groups(own: OwnData, split: str) -> list[ImageGroup]:
    """The images of a folder, by how they end; upper and lower case are one ending.

    Args:
        own: Of a segmentation.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Returns:
        Groups that are not empty; groups of no image, one per suffix of the config, if the data are
        not at hand or the images are listed in a text file.

    Raises:
        UsageError: If no file of the folder ends in one of the suffixes.
    """
    folder = own.path(split, 'images')
    given = [ImageGroup(suffix, ()) for suffix in own.image_suffix]
    if 'list' in own.splits[split]:
        return given[:1]
    if is_address(folder) or not os.path.isdir(folder):
        return given
    found: dict[str, list[str]] = {}
    files = _files_below(folder)
    for path in files:
        for suffix in own.image_suffix:
            if path.lower().endswith(suffix.lower()):
                found.setdefault(path[-len(suffix) :], []).append(path[: -len(suffix)])
                break
    if not found:
        ends = Counter(os.path.splitext(path)[1] or 'no ending' for path in files).most_common()
        there = ', '.join(f'{number} with {ending}' for ending, number in ends)
        raise UsageError(
            f'own_data.{split}.images: no file in {folder} ends in '
            f'{" or ".join(own.image_suffix)} (own_data.image_suffix); there are '
            f'{there or "no files"}'
        )
    # as mmseg sorts: by the whole path
    return [
        ImageGroup(suffix, tuple(sorted(stems, key=lambda stem, end=suffix: stem + end)))
        for suffix, stems in sorted(found.items())
    ]


def _files_below(folder: str) -> list[str]:
    """Files that mmseg would see, as paths below the folder."""
    found = []
    for place, _, names in os.walk(folder, followlinks=True):
        below = os.path.relpath(place, folder)
        found += [
            os.path.join(below, name) if below != '.' else name
            for name in names
            if not name.startswith('.') and os.path.isfile(os.path.join(place, name))
        ]
    return found


def listed_images(path: str) -> int:
    """Number of lines with a name in a list of images."""
    with open(path, encoding='utf-8') as file:
        return sum(bool(line.strip()) for line in file)


def held_out(names: Sequence[str], share: float) -> frozenset[int]:
    """Which images validate, chosen by their names: the same ones in every process and run.

    Names are put in the order of a digest, and the first ones are taken. New images hardly change
    on which side the others are.

    Args:
        names: Of all images.
        share: Part of them to take.

    Returns:
        Positions in ``names``.

    Raises:
        UsageError: If no image would be left on one side.
    """
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise UsageError(
            f'own_data.val={share} cannot be held out of {len(names)} training images: name '
            'validation images, or add images'
        )
    order = sorted(range(len(names)), key=lambda index: (_digest(names[index]), index))
    return frozenset(order[:count])


def _digest(name: str) -> str:
    return hashlib.sha256(name.replace(os.sep, '/').encode()).hexdigest()
