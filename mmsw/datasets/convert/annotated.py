"""What every format is read into: images with objects, and what was left out for which reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmsw.wording import listed

IGNORE = '__ignore__'  # labelme's own name for pixels that are no class
BACKGROUND = '_background_'  # the same for pixels without an object
Progress = Callable[[str, int, int], None]  # what is done, how many of them, of how many


@dataclass
class AnnotatedObject:
    """One object of an image.

    Attributes:
        label: Name of its class.
        box: ``[x, y, width, height]`` in pixels.
        outline: Polygons ``[x1, y1, x2, y2, ...]``, which are united, or a run-length encoding of
            COCO; ``None`` if there is only the box.
        crowd: Not to be learned and not to be counted as missed.
    """

    label: str
    box: list[float]
    outline: list[list[float]] | dict | None = None
    crowd: bool = False


@dataclass
class AnnotatedImage:
    """One image.

    Attributes:
        name: Where it goes below the folder of images, in that form a name of its own.
        height: In pixels, turned as EXIF says.
        width: The same.
        objects: In the order of the file.
        picture: The file.
        content: Of the picture, where it stands inside of an annotation file.
        labels: Makes the label map, where the format has one; it may raise :class:`UnfitError`.
        part: ``'train'``, ``'val'`` or ``'test'``; ``None`` if the source does not say.
    """

    name: PurePosixPath
    height: int
    width: int
    objects: list[AnnotatedObject] = field(default_factory=list)
    picture: Path | None = None
    content: bytes | None = None
    labels: Callable[[], np.ndarray] | None = None
    part: str | None = None


class LeftOut:
    """What was left out, by reason.

    Attributes:
        skipped: From a reason to the names that a user should look at.
        notes: The same for what is as it should be.
    """

    def __init__(self) -> None:
        self.skipped: dict[str, list[str]] = {}
        self.notes: dict[str, list[str]] = {}

    def skip(self, name: Any, reason: object) -> None:
        """Count something that a user should look at."""
        self.skipped.setdefault(str(reason), []).append(str(name))

    def note(self, name: Any, reason: str) -> None:
        """Count something that is left out on purpose."""
        self.notes.setdefault(reason, []).append(str(name))

    def lines(self) -> Iterable[str]:
        """One line per reason, with its number and the first names."""
        for title, found in (('skipped', self.skipped), ('left out', self.notes)):
            for reason, names in sorted(found.items()):
                distinct = list(dict.fromkeys(names))
                yield f'{title}: {len(names)} x {reason} ({listed(distinct, 3)})'


@dataclass
class Found:
    """All of a source.

    Attributes:
        images: Sorted by part and name.
        classes: Names of the classes in the order of their numbers.
        left_out: What is not among the images.
    """

    images: list[AnnotatedImage]
    classes: list[str]
    left_out: LeftOut


def class_names(given: Sequence[str] | None, labels: Iterable[str]) -> list[str]:
    """Names of the classes: those that were asked for, else all labels, sorted."""
    return list(given) if given else sorted(set(labels))
