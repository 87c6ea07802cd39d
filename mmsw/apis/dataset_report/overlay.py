"""Truth drawn on an image: label maps, masks and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mmsw.datasets.label_maps import KnownClasses
from mmsw.datasets.palette import distinct_colors

from ..images import displayable
from .reading import Sample
from .statistics import Statistics

Color = tuple[int, int, int]

IGNORED, NO_CLASS = (0, 0, 0), (255, 0, 0)
_WITHOUT_NAME = (255, 255, 255)
_OPACITY = 0.55


def colors_of(statistics: Statistics) -> list[Color]:
    """RGB of every class: those of the data set, or ones that are easy to tell apart."""
    number, palette = len(statistics.classes), statistics.palette
    fits = isinstance(palette, (list, tuple)) and len(palette) >= number > 0
    if fits and all(len(color) == 3 for color in palette):
        return [tuple(int(part) for part in color) for color in palette]
    return distinct_colors(number)


def drawn(
    sample: Sample, known: KnownClasses | None, colors: Sequence[Color], frame: tuple[int, int]
) -> np.ndarray:
    """An image with its truth, made to fit a frame.

    Args:
        sample: With an image.
        known: Which labels are ignored.
        colors: RGB of each class.
        frame: Greatest width and height.

    Returns:
        RGB, uint8, ``[H, W, 3]``.
    """
    image = displayable(sample.image)[..., ::-1]
    height, width = image.shape[:2]
    scale = min(frame[0] / width, frame[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(
        np.ascontiguousarray(image),
        size,
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    if sample.labels is not None:
        labels = cv2.resize(sample.labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
        small = _with_labels(small, labels, known, colors)
    return _with_objects(small, sample.results, colors, scale)


def _with_labels(
    image: np.ndarray, labels: np.ndarray, known: KnownClasses | None, colors: Sequence[Color]
) -> np.ndarray:
    ignored = known.ignored if known is not None else {255}
    table = np.full((256, 3), NO_CLASS, dtype=np.float32)
    table[: len(colors)] = colors[:256]
    if known is not None and known.number > len(colors):  # one name for two classes
        table[len(colors) : known.number] = _WITHOUT_NAME
    table[[label for label in ignored if 0 <= label <= 255]] = IGNORED
    layer = table[np.clip(labels, 0, 255)]
    return (image * (1 - _OPACITY) + layer * _OPACITY).astype(np.uint8)


def _with_objects(
    image: np.ndarray, results: dict, colors: Sequence[Color], scale: float
) -> np.ndarray:
    boxes = _array(results.get('gt_bboxes'))
    labels = _array(results.get('gt_bboxes_labels'))
    if boxes is None or labels is None or boxes.ndim != 2 or boxes.shape[1] != 4:
        return image
    masks = results.get('gt_masks')
    masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else []
    ignored = results.get('gt_ignore_flags', np.zeros(len(labels), dtype=bool))
    size = image.shape[1::-1]
    for index, label in enumerate(labels.tolist()):
        known = isinstance(label, int) and 0 <= label < len(colors)
        color = IGNORED if ignored[index] else colors[label] if known else NO_CLASS
        if index < len(masks):
            mask = cv2.resize(masks[index].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            inside = mask > 0
            image[inside] = image[inside] * (1 - _OPACITY) + np.array(color) * _OPACITY
        left, top, right, bottom = (round(float(value) * scale) for value in boxes[index])
        cv2.rectangle(image, (left, top), (right, bottom), color, 2)
    return image


def _array(value: Any) -> np.ndarray | None:
    """Of boxes of mmdet, a tensor or an array."""
    value = getattr(value, 'tensor', value)
    return None if value is None else np.asarray(value)
