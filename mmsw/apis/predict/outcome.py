"""What a model sees in an image, without its toolbox: a map of classes, or objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.structures import BaseDataElement

from mmsw.errors import UsageError
from mmsw.wording import listed

_MOST = 5  # classes that a line names


@dataclass(frozen=True)
class ClassMap:
    """Class per pixel.

    Attributes:
        labels: ``[H, W]``, uint8, or uint16 where there are more than 256 classes.
    """

    labels: np.ndarray

    def describe(self, classes: Sequence[str]) -> str:
        """One line: classes with their share of the area, the most first."""
        counts = np.bincount(self.labels.ravel())
        order = [index for index in np.argsort(-counts, kind='stable') if counts[index]]
        shares = counts / self.labels.size
        return listed(
            [f'{class_name(classes, index)} {shares[index]:.1%}' for index in order], _MOST
        )


@dataclass(frozen=True)
class Mask:
    """Pixels of an object.

    Attributes:
        x: Column of the image where ``pixels`` begins.
        y: Row of the image.
        pixels: ``[h, w]``, bool; all others of the image are not of the object.
    """

    x: int
    y: int
    pixels: np.ndarray


@dataclass(frozen=True)
class Objects:
    """What was found in an image, the best first.

    Attributes:
        height: Of the image.
        width: Of the image.
        boxes: ``[n, 4]``, x1, y1, x2, y2 in pixels.
        scores: ``[n]``.
        labels: ``[n]``, indices of classes.
        masks: One per object, or ``None`` where the model makes none.
        score_thr: Least score of those that were kept.
    """

    height: int
    width: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[Mask, ...] | None
    score_thr: float = 0.0

    def describe(self, classes: Sequence[str]) -> str:
        """One line: number of objects per class, the most first."""
        parts = []
        for label, count in Counter(self.labels.tolist()).most_common():
            best = self.scores[self.labels == label].max()
            parts.append(f'{count} x {class_name(classes, label)} (best {best:.2f})')
        number = len(self.scores)
        ending = '' if number == 1 else 's'
        total = f'{number} object{ending} of score {self.score_thr:g} or more'
        return f'{total}: {listed(parts, _MOST)}' if parts else total


Outcome = ClassMap | Objects


def class_name(classes: Sequence[str], index: int) -> str:
    """Name of a class; a model may have more classes than the data set has names."""
    return classes[index] if index < len(classes) else f'class {index}'


def outcome_of(result: BaseDataElement, score_thr: float = 0.0) -> Outcome:
    """Take the outcome from a result of :func:`mmsw.apis.inference`.

    Args:
        result: Data sample of mmseg or mmdet.
        score_thr: Least score of objects to keep.

    Raises:
        UsageError: If it has neither classes of pixels nor objects.
    """
    if 'pred_sem_seg' in result:
        labels = result.pred_sem_seg.data.squeeze(0).cpu().numpy()
        return ClassMap(labels.astype(label_type(int(labels.max(initial=0)) + 1)))
    if 'pred_instances' not in result:
        raise UsageError(
            f'the model gives {", ".join(result.keys()) or "nothing"}; expected pred_sem_seg or '
            'pred_instances'
        )
    return _objects_of(result, score_thr)


def label_type(classes: int) -> type[np.unsignedinteger]:
    """Type of the numbers of a label map with so many classes."""
    return np.uint8 if classes <= 256 else np.uint16


def _objects_of(result: BaseDataElement, score_thr: float) -> Objects:
    found = result.pred_instances
    scores = found.scores.detach().cpu().numpy()
    order = np.argsort(-scores, kind='stable')
    order = order[scores[order] >= score_thr]
    boxes = getattr(found.bboxes, 'tensor', found.bboxes).detach().cpu().numpy()
    masks = None
    if 'masks' in found:
        stack = getattr(found.masks, 'masks', found.masks)  # a BitmapMasks, or a tensor
        stack = stack.cpu().numpy() if hasattr(stack, 'cpu') else np.asarray(stack)
        masks = tuple(cut_out(stack[index]) for index in order)
    height, width = result.ori_shape[:2]
    labels = found.labels.cpu().numpy()[order]
    return Objects(height, width, boxes[order], scores[order], labels, masks, score_thr)


def cut_out(pixels: np.ndarray, x: int = 0, y: int = 0) -> Mask:
    """The part of a mask that has pixels of the object.

    Args:
        pixels: ``[H, W]``.
        x: Column of the image where it begins.
        y: Row of the image.
    """
    pixels = pixels.astype(bool, copy=False)
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return Mask(x, y, np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    inside = pixels[top : rows[-1] + 1, left : columns[-1] + 1].copy()
    return Mask(x + left, y + top, inside)
