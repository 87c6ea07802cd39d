"""Drawing label maps from objects, and writing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmsw.errors import UnfitError

from ..label_values import IGNORED
from .annotated import IGNORE, AnnotatedImage, LeftOut
from .outlines import area_of, encoded


def drawn_labels(
    image: AnnotatedImage,
    numbers: dict[str, int],
    background: int,
    left_out: LeftOut,
) -> np.ndarray:
    """The label map of an image: objects of less area lie above larger ones.

    Of objects of equal area, that which comes later in the file lies above.

    Args:
        image: With outlines.
        numbers: Value of each class; other objects mean the background.
        background: Value of pixels without an object.
        left_out: Told about objects that cannot be drawn.

    Returns:
        uint8 ``[H, W]``.
    """
    from pycocotools import mask

    labels = np.full((image.height, image.width), background, np.uint8)
    found = []
    for item in image.objects:
        if item.outline is None:
            left_out.skip(image.name, 'object that has a box but no outline')
        else:
            try:
                rle = encoded(item.outline, image.height, image.width)
            except UnfitError as reason:
                left_out.skip(image.name, reason)
                continue
            found.append((area_of(rle), numbers.get(item.label, background), rle))
    for area, number, rle in sorted(found, key=lambda entry: -entry[0]):
        if not area:
            left_out.skip(image.name, 'object whose outline holds no pixel')
        labels[mask.decode(rle).astype(bool)] = number
    return labels


def class_values(classes: Sequence[str], background: int) -> tuple[list[str], dict[str, int]]:
    """Names in the order of the values of label maps, and the value of each class.

    A class called background is the one of pixels without an object; it becomes the first.

    Args:
        classes: Names.
        background: 0, or 255 if pixels without an object are no class.
    """
    same = [name for name in classes if is_background(name)]
    names = [name for name in classes if not is_background(name)]
    if background == 0:
        names = [same[0] if same else 'background', *names]
    numbers = {name: index for index, name in enumerate(names)}
    return names, {**numbers, **dict.fromkeys(same, background), IGNORE: IGNORED}


def is_background(name: str) -> bool:
    """Whether a class is that of pixels without an object."""
    return name.strip('_').lower() == 'background'


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write a PNG of one channel."""
    from PIL import Image  # as in mmcv

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
