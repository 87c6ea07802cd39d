"""Outlines of objects in COCO's forms: their masks, areas and boxes, by pycocotools."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmsw.errors import UnfitError

_FEWEST = 6  # numbers of a polygon


def checked_outline(given: Any) -> list[list[float]] | dict | None:
    """An outline in one of COCO's forms.

    Args:
        given: A list of polygons, a single polygon as a list of numbers, or a run-length encoding,
            compressed or not. Polygons with fewer than three corners are left out.

    Returns:
        Polygons or a run-length encoding; ``None`` if nothing is left.

    Raises:
        UnfitError: If it is of no such form.
    """
    if not given:
        return None
    if isinstance(given, dict):
        if not {'counts', 'size'} <= given.keys():
            raise UnfitError('its mask has no counts and size')
        return given
    if not isinstance(given, list):
        raise UnfitError('its outline is neither polygons nor a mask')
    polygons = [given] if isinstance(given[0], (int, float)) else given
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(_is_number(number) for number in polygon):
            raise UnfitError('its outline is neither polygons nor a mask')
    return [item for item in polygons if len(item) % 2 == 0 and len(item) >= _FEWEST] or None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def encoded(outline: list[list[float]] | dict, height: int, width: int) -> dict:
    """The compressed run-length encoding of an outline.

    Raises:
        UnfitError: If a run-length encoding is damaged, or of another size.
    """
    from pycocotools import mask

    if isinstance(outline, list):
        return mask.merge(mask.frPyObjects(outline, height, width))
    if [int(side) for side in outline['size']] != [height, width]:
        raise UnfitError('its mask has another size than the image')
    counts = outline['counts']
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts, default=0) < 0:
            raise UnfitError('the counts of its mask do not add up to the size of the image')
        return mask.frPyObjects(dict(size=[height, width], counts=counts), height, width)
    counts = counts.encode() if isinstance(counts, str) else counts
    found = dict(size=[height, width], counts=counts)
    try:
        pixels = int(mask.decode(found).sum())
    except (ValueError, TypeError) as error:
        raise UnfitError('the counts of its mask are damaged') from error
    if pixels != area_of(found):  # they end too early
        raise UnfitError('the counts of its mask are damaged')
    return found


def area_of(rle: dict) -> int:
    """Number of pixels of a compressed run-length encoding."""
    from pycocotools import mask

    return int(mask.area(rle))


def box_of(rle: dict) -> list[float]:
    """``[x, y, width, height]`` around a compressed run-length encoding."""
    from pycocotools import mask

    return [float(number) for number in mask.toBbox(rle)]


def from_mask(values: np.ndarray) -> dict:
    """The compressed run-length encoding of a mask of ``[H, W]``."""
    from pycocotools import mask

    return mask.encode(np.asfortranarray(values.astype(np.uint8)))


def written(rle: dict) -> dict:
    """A compressed run-length encoding as JSON holds it."""
    counts = rle['counts']
    return dict(size=rle['size'], counts=counts.decode() if isinstance(counts, bytes) else counts)


def inside(box: list[float], height: int, width: int) -> list[float] | None:
    """The part of a box in its image; ``None`` if that is less than a pixel wide or high."""
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    if right - left < 1 or bottom - top < 1:
        return None
    return [left, top, right - left, bottom - top]
