"""Objects in a large image, from windows: doubles are dropped, pieces at borders are joined.

An object in the overlap of two windows is found twice, and one at the border of a window is cut
there. What touches an inner border of its window is taken for a piece, all else for whole.

1. Of whole objects that overlap, the best stays (NMS per class, with the model's own threshold).
2. A piece goes if a whole object of its class, found in another window, covers most of it.
3. Pieces of one class from two windows, which agree about what both windows see, become one object:
   the box and mask around both, with the better score.
4. NMS again, over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .outcome import Mask, Objects, cut_out
from .windows import Span, grid

_COVERED = 0.7  # share of a piece inside of a whole object
_AGREE = 0.5  # overlap of two pieces over their union, where both windows see them
_NEAR = 0.01  # of a window's side: as near to a border as this touches it; two pixels at least

ObjectsOf = Callable[[Iterable[np.ndarray]], Iterator[Objects]]


@dataclass(frozen=True)
class _Found:
    """Objects of all windows: boxes in the image, the windows they are from, whether cut."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[Mask, ...] | None
    windows: np.ndarray
    cut: np.ndarray

    def take(self, index: np.ndarray) -> _Found:
        masks = None if self.masks is None else tuple(self.masks[i] for i in index)
        kept = (getattr(self, name)[index] for name in ('boxes', 'scores', 'labels'))
        return _Found(*kept, masks, self.windows[index], self.cut[index])


def detect_in_windows(
    image: np.ndarray,
    window: tuple[int, int],
    overlap: float,
    objects_of: ObjectsOf,
    iou_threshold: float = 0.5,
) -> Objects:
    """Find the objects of an image window by window.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``.
        window: Height and width.
        overlap: Least share of a window that it has in common with its neighbour, 0 to 0.5.
        objects_of: Gives the objects of each window, in order.
        iou_threshold: Overlap over union, above which the worse of two objects of a class goes.
    """
    places = list(grid(image.shape, window, overlap))
    crops = (image[row.start : row.stop, column.start : column.stop] for row, column in places)
    height, width = image.shape[:2]
    parts, score_thr = [], 0.0
    for number, ((row, column), found) in enumerate(zip(places, objects_of(crops), strict=True)):
        parts.append(_placed(found, number, row, column, (height, width)))
        score_thr = found.score_thr
    merged = _merged(_joined_lists(parts), places, iou_threshold)
    order = np.argsort(-merged.scores, kind='stable')
    kept = merged.take(order)
    return Objects(height, width, kept.boxes, kept.scores, kept.labels, kept.masks, score_thr)


def _placed(found: Objects, number: int, row: Span, column: Span, size: tuple[int, int]) -> _Found:
    """Objects of a window, where they are in the image."""
    offset = np.array([column.start, row.start] * 2, np.float32)
    boxes = found.boxes.astype(np.float32) + offset
    near = [max(2.0, _NEAR * (span.stop - span.start)) for span in (column, row)]
    cut = np.zeros(len(boxes), bool)
    for axis, span in enumerate((column, row)):
        if span.start > 0:
            cut |= boxes[:, axis] < span.start + near[axis]
        if span.stop < size[1 - axis]:
            cut |= boxes[:, axis + 2] > span.stop - near[axis]
    masks = found.masks
    if masks is not None:
        masks = tuple(replace(m, x=m.x + column.start, y=m.y + row.start) for m in masks)
    windows = np.full(len(boxes), number)
    return _Found(boxes, found.scores, found.labels, masks, windows, cut)


def _joined_lists(parts: Sequence[_Found]) -> _Found:
    names = ('boxes', 'scores', 'labels')
    arrays = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    masks = None
    if all(part.masks is not None for part in parts):
        masks = tuple(mask for part in parts for mask in part.masks)
    ends = (np.concatenate([getattr(part, name) for part in parts]) for name in ('windows', 'cut'))
    return _Found(*arrays, masks, *ends)


def _merged(found: _Found, places: Sequence[tuple[Span, Span]], iou_threshold: float) -> _Found:
    whole = _suppressed(found.take(np.flatnonzero(~found.cut)), iou_threshold)
    pieces = found.take(np.flatnonzero(found.cut))
    pieces = pieces.take(np.flatnonzero(~_covered(pieces, whole, places)))
    joined = [_union(pieces, group) for group in _groups(pieces, places)]
    return _suppressed(_joined_lists([whole, *joined]), iou_threshold)


def _suppressed(found: _Found, iou_threshold: float) -> _Found:
    """What NMS per class leaves."""
    import torch
    from mmcv.ops import batched_nms

    if not len(found.scores):
        return found
    boxes, scores, labels = (
        torch.from_numpy(np.ascontiguousarray(value, kind))
        for value, kind in (
            (found.boxes, np.float32),
            (found.scores, np.float32),
            (found.labels, np.int64),
        )
    )
    _, kept = batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=iou_threshold))
    return found.take(kept.numpy())


def _neighbours(places: Sequence[tuple[Span, Span]]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Pairs of windows that overlap, and the box that they have in common."""
    boxes = np.array([[c.start, r.start, c.stop, r.stop] for r, c in places], np.float32)
    for one in range(len(boxes)):
        common = _common(boxes[one], boxes)
        there = (common[:, 2] > common[:, 0]) & (common[:, 3] > common[:, 1])
        there[one] = False
        for other in np.flatnonzero(there):
            yield one, int(other), common[other]


def _common(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What boxes have in common, as boxes; where that is nothing they are inside out."""
    return np.concatenate(
        [np.maximum(one[..., :2], others[..., :2]), np.minimum(one[..., 2:], others[..., 2:])], -1
    )


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), -1)


def _covered(pieces: _Found, whole: _Found, places: Sequence[tuple[Span, Span]]) -> np.ndarray:
    """Which pieces a whole object of another window covers."""
    covered = np.zeros(len(pieces.scores), bool)
    for one, other, _ in _neighbours(places) if len(whole.scores) and len(covered) else ():
        mine, theirs = np.flatnonzero(pieces.windows == one), np.flatnonzero(whole.windows == other)
        inside = _area(_common(pieces.boxes[mine, None], whole.boxes[theirs]))
        share = inside / np.maximum(_area(pieces.boxes[mine]), 1e-6)[:, None]
        same = pieces.labels[mine, None] == whole.labels[theirs]
        covered[mine] |= ((share >= _COVERED) & same).any(1)
    return covered


def _groups(pieces: _Found, places: Sequence[tuple[Span, Span]]) -> list[list[int]]:
    """Indices of the pieces of each object."""
    group = list(range(len(pieces.scores)))

    def first(index: int) -> int:
        while group[index] != index:
            index = group[index]
        return index

    for one, other, seen in _neighbours(places) if group else ():
        mine = np.flatnonzero(pieces.windows == one)
        theirs = np.flatnonzero(pieces.windows == other)
        if one > other or not len(mine) or not len(theirs):
            continue
        left, right = _common(seen, pieces.boxes[mine]), _common(seen, pieces.boxes[theirs])
        both = _area(_common(left[:, None], right))
        union = _area(left)[:, None] + _area(right) - both
        same = pieces.labels[mine, None] == pieces.labels[theirs]
        for i, j in zip(*np.nonzero((both >= _AGREE * union) & (both > 0) & same), strict=True):
            group[first(int(theirs[j]))] = first(int(mine[i]))
    groups: dict[int, list[int]] = {}
    for index in range(len(group)):
        groups.setdefault(first(index), []).append(index)
    return list(groups.values())


def _union(pieces: _Found, group: Sequence[int]) -> _Found:
    """One object from its pieces."""
    best = max(group, key=lambda index: pieces.scores[index])
    found = pieces.take(np.array([best]))
    boxes = pieces.boxes[group]
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])[None]
    masks = found.masks
    if masks is not None:
        masks = (_united([pieces.masks[index] for index in group]),)
    return replace(found, boxes=box, masks=masks)


def _united(masks: Sequence[Mask]) -> Mask:
    masks = [mask for mask in masks if mask.pixels.size]
    if not masks:
        return Mask(0, 0, np.zeros((0, 0), bool))
    x, y = min(mask.x for mask in masks), min(mask.y for mask in masks)
    right = max(mask.x + mask.pixels.shape[1] for mask in masks)
    bottom = max(mask.y + mask.pixels.shape[0] for mask in masks)
    pixels = np.zeros((bottom - y, right - x), bool)
    for mask in masks:
        height, width = mask.pixels.shape
        pixels[mask.y - y : mask.y - y + height, mask.x - x : mask.x - x + width] |= mask.pixels
    return cut_out(pixels, x, y)
