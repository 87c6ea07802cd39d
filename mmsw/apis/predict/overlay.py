"""Pictures with what a model sees in them, drawn in a few milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ..images import displayable
from .outcome import ClassMap, Objects, Outcome, class_name
from .text import Colour, paste, readable_on, text_patch, text_size

_LEAST_SHARE = 0.002  # of the area, of a class in the legend
_MOST = 12  # classes in the legend
_LEGEND = 0.12  # of the area, all of the legend
_PANEL = (40, 40, 40)


def draw_outcome(
    image: np.ndarray,
    outcome: Outcome,
    meta: Mapping[str, Any],
    opacity: float = 0.5,
    legend: bool = True,
) -> np.ndarray:
    """Draw an outcome on its image.

    Args:
        image: As a loader gave it; shown as :func:`mmsw.apis.images.displayable` says.
        outcome: What a model sees in it.
        meta: ``dataset_meta`` of the model: ``classes`` and ``palette``, RGB.
        opacity: Of classes or masks, 0 to 1.
        legend: Whether the picture of a segmentation has the names of its classes, where they fit.

    Returns:
        BGR, uint8, ``[H, W, 3]``, a new array.
    """
    picture = displayable(image)
    if isinstance(outcome, ClassMap):
        return _draw_classes(picture, outcome, meta, opacity, legend)
    return _draw_objects(picture, outcome, meta, opacity)


def colour_table(palette: Sequence[Sequence[int]], number: int) -> np.ndarray:
    """BGR colours of classes, uint8, ``[number, 3]``; grey beyond the palette."""
    table = np.full((max(number, len(palette)), 3), 128, np.uint8)
    table[: len(palette)] = np.asarray(palette, np.uint8)[:, ::-1]
    return table


def _draw_classes(
    image: np.ndarray, found: ClassMap, meta: Mapping[str, Any], opacity: float, legend: bool
) -> np.ndarray:
    labels = found.labels
    if labels.dtype == np.uint8:
        table = colour_table(meta['palette'], 256)[:256]
        colours = cv2.LUT(cv2.merge([labels] * 3), table[None])
    else:
        colours = np.take(colour_table(meta['palette'], int(labels.max()) + 1), labels, axis=0)
    picture = cv2.addWeighted(np.ascontiguousarray(image), 1 - opacity, colours, opacity, 0)
    if legend:
        _add_legend(picture, labels, meta)
    return picture


def _add_legend(picture: np.ndarray, labels: np.ndarray, meta: Mapping[str, Any]) -> None:
    """Name the classes of the largest areas in the upper left corner, in place.

    The names are as many as fit into a small part of the picture; none where that is too small.
    """
    height, width = picture.shape[:2]
    size = text_size(height, width)
    if labels.dtype == np.uint8:
        counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    else:
        counts = np.bincount(labels.ravel())
    largest = np.argsort(-counts, kind='stable')
    shown = [int(i) for i in largest[:_MOST] if counts[i] >= max(1, _LEAST_SHARE * labels.size)]
    table = colour_table(meta['palette'], len(counts))
    rows = {}
    for index in shown:
        name = text_patch(class_name(meta['classes'], index), size, (255, 255, 255), _PANEL)
        swatch = np.full((name.shape[0], size, 3), _PANEL, np.uint8)
        swatch[2:-2, 2:] = table[index]
        row = np.hstack([swatch, name])
        panel = max([row.shape[1], *(other.shape[1] for other in rows.values())])
        if panel > width // 2 or panel * row.shape[0] * (len(rows) + 1) > _LEGEND * labels.size:
            break
        rows[index] = row
    y, panel = 0, max((row.shape[1] for row in rows.values()), default=0)
    for _, row in sorted(rows.items()):  # in one order in all frames of a video
        whole = np.full((row.shape[0], panel, 3), _PANEL, np.uint8)
        whole[:, : row.shape[1]] = row
        under = picture[y : y + row.shape[0], :panel]
        under[:] = cv2.addWeighted(np.ascontiguousarray(under), 0.25, whole, 0.75, 0)
        y += row.shape[0]


def _draw_objects(
    image: np.ndarray, found: Objects, meta: Mapping[str, Any], opacity: float
) -> np.ndarray:
    picture = np.array(image, order='C')
    height, width = picture.shape[:2]
    line, size = max(1, round(min(height, width) / 400)), text_size(height, width)
    table = colour_table(meta['palette'], int(found.labels.max(initial=0)) + 1)
    colours: list[Colour] = [tuple(map(int, table[label])) for label in found.labels]
    worst_first = range(len(found.scores))[::-1]  # the best lies on top
    for index in worst_first if found.masks is not None else ():
        _draw_mask(picture, found.masks[index], colours[index], opacity, line)
    outside = max(height, width) + 2 * line
    corners = np.clip(np.nan_to_num(found.boxes), -outside, outside).round().astype(int).tolist()
    for index in worst_first:
        x1, y1, x2, y2 = corners[index]
        cv2.rectangle(picture, (x1, y1), (x2, y2), colours[index], line)
    for index in worst_first:
        name = class_name(meta['classes'], int(found.labels[index]))
        ground = colours[index]
        text = f'{name} {found.scores[index]:.2f}'
        patch = text_patch(text, size, readable_on(ground), ground)
        x, y = corners[index][:2]
        above = y - patch.shape[0]
        paste(picture, patch, x, above if above >= 0 else y)
    return picture


def _draw_mask(picture: np.ndarray, mask: Any, colour: Colour, opacity: float, line: int) -> None:
    """Tint the pixels of an object and draw their outline, in place."""
    height, width = mask.pixels.shape
    part = picture[mask.y : mask.y + height, mask.x : mask.x + width]
    pixels = mask.pixels[: part.shape[0], : part.shape[1]]
    if not pixels.size or opacity == 0:
        return
    tinted = cv2.addWeighted(
        np.ascontiguousarray(part), 1 - opacity, np.full_like(part, colour), opacity, 0
    )
    np.copyto(part, tinted, where=pixels[..., None])
    outlines, _ = cv2.findContours(
        pixels.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(mask.x, mask.y)
    )
    cv2.drawContours(picture, outlines, -1, colour, line)
