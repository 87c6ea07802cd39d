"""Figures about the images and labels of one data loader."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .headers import Header

SIZES = ('small', 'medium', 'large')
_SMALL, _LARGE = 32**2, 96**2  # pixels, as COCO has them
_BEYOND = 1.0  # pixels that a box may stand out of its image


@dataclass
class Labels:
    """Labels of pixels.

    Attributes:
        maps: Label maps that were read.
        pixels: ``[256]``, pixels per label as the model learns them.
        loaded: ``[256]``, as ``LoadAnnotations`` gives them.
        with_label: ``[256]``, label maps that hold the label.
        number: Of the classes that the model tells apart; 0 where labels may mean anything.
        ignored: Labels that losses and metrics leave out.
        chosen: Whether a data set takes some of many classes (``label_map`` of mmsegmentation).
        strange: Label maps per label that is neither a class nor ignored.
        strange_files: Their names.
        explained: What the loader says of the first of them in a run.
    """

    maps: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    loaded: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    with_label: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    number: int = 0
    ignored: set[int] = field(default_factory=set)
    chosen: bool = False
    strange: Counter = field(default_factory=Counter)
    strange_files: list[str] = field(default_factory=list)
    explained: str | None = None

    @property
    def judged(self) -> bool:
        """Whether it is known which labels are classes; code of others may use any."""
        return self.number > 0

    def add(self, labels: np.ndarray, loaded: np.ndarray) -> np.ndarray:
        """Count a label map.

        Args:
            labels: ``[H, W]``, as the model learns them.
            loaded: As ``LoadAnnotations`` gives them.

        Returns:
            The labels in it, in order.
        """
        self.maps += 1
        counts = _counted(labels)
        self.pixels += counts
        self.loaded += counts if loaded is labels else _counted(loaded)
        self.with_label += counts > 0
        return np.flatnonzero(counts)


@dataclass
class Objects:
    """Objects with boxes, or images with a class.

    Attributes:
        images: Images that were looked at.
        empty: Among them those without an object.
        per_class: Objects of each class; crowds and what is ignored are not among them.
        with_class: Images that have the class.
        sizes: ``[classes, 3]``, objects by the area of their box: small, medium, large.
        crowds: Objects that are ignored.
        empty_boxes: Files of images with a box that has no area.
        outside: Files of images with a box that stands out of them.
        polygons: Files of images with a polygon of less than three points.
    """

    images: int = 0
    empty: int = 0
    per_class: Counter = field(default_factory=Counter)
    with_class: Counter = field(default_factory=Counter)
    sizes: dict[int, list[int]] = field(default_factory=dict)
    crowds: int = 0
    empty_boxes: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    polygons: list[str] = field(default_factory=list)

    def add(self, info: dict) -> None:
        """Count the objects of an image, or its class."""
        instances = info.get('instances')
        if instances is None:
            instances = [{'bbox_label': label} for label in _classes_of_image(info)]
        self.images += 1
        kept = [item for item in instances if not item.get('ignore_flag')]
        self.empty += not kept
        self.crowds += len(instances) - len(kept)
        labels = [item.get('bbox_label') for item in kept]
        self.with_class.update(set(labels))
        path, problems = str(info.get('img_path')), set()
        for item, label in zip(kept, labels, strict=True):
            self.per_class[label] += 1
            if 'bbox' in item:
                problems |= self._add_box(item['bbox'], label, info)
            mask = item.get('mask')
            if isinstance(mask, list) and any(len(part) < 6 for part in mask):
                problems.add('polygons')
        for problem in problems:
            getattr(self, problem).append(path)

    def _add_box(self, box: Any, label: int, info: dict) -> set[str]:
        if len(box) != 4:  # turned boxes
            return set()
        left, top, right, bottom = (float(value) for value in box)
        width, height = right - left, bottom - top
        if not (width > 0 and height > 0):
            return {'empty_boxes'}
        area = width * height
        row = self.sizes.setdefault(label, [0, 0, 0])
        row[0 if area < _SMALL else 1 if area < _LARGE else 2] += 1
        end = info.get('width') or np.inf, info.get('height') or np.inf
        out = min(left, top, end[0] - right, end[1] - bottom) < -_BEYOND
        return {'outside'} if out else set()


@dataclass
class Statistics:
    """Of one data loader.

    Attributes:
        name: Its key in the config.
        kinds: Types of its data sets.
        classes: Names; empty where the data set has none.
        palette: RGB of each class, if it says so.
        images: Number of images, as often as the data sets list them.
        complete: Whether every image was read.
        headers: Of the files that were looked at.
        label_headers: Of label maps.
        read: Images that were decoded.
        loaded: Kinds of arrays that came out, for instance ``'3 channels, uint8'``.
        labels: Of pixels.
        objects: Of boxes.
        objects_complete: Whether the objects of every image were counted.
        broken: Files and why they cannot be used.
        more_broken: Files that look like these, but were not read.
        dropped: Annotations and images of COCO files that the data set leaves out, by reason.
        crop: Height and width of training crops.
    """

    name: str
    kinds: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    palette: list | None = None
    images: int = 0
    complete: bool = False
    headers: list[Header] = field(default_factory=list)
    label_headers: Counter = field(default_factory=Counter)
    read: int = 0
    loaded: Counter = field(default_factory=Counter)
    labels: Labels = field(default_factory=Labels)
    objects: Objects = field(default_factory=Objects)
    objects_complete: bool = False
    broken: list[tuple[str, str]] = field(default_factory=list)
    more_broken: int = 0
    dropped: Counter = field(default_factory=Counter)
    crop: tuple[int, int] | None = None

    @property
    def sizes(self) -> Counter:
        """Images per width and height as they are stored."""
        return Counter((item.width, item.height) for item in self.headers)

    @property
    def shares(self) -> list[float]:
        """Share of each class in all pixels that were read, those without a class included."""
        pixels = self.labels.pixels
        return (pixels[: len(self.classes)] / max(1, pixels.sum())).tolist()


def _counted(labels: np.ndarray) -> np.ndarray:
    flat = labels.ravel()
    if flat.dtype != np.uint8:
        flat = flat[(flat >= 0) & (flat <= 255)]
    return np.bincount(flat, minlength=256)


def _classes_of_image(info: dict) -> list[int]:
    """What mmpretrain has: one class of an image, or several."""
    label = info.get('gt_label', ())
    return np.atleast_1d(np.asarray(label, dtype=np.int64)).tolist() if np.size(label) else []
