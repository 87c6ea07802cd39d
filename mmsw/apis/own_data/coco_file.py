"""What a COCO annotation file says of own data: its images and its categories."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections import Counter
from difflib import get_close_matches

from mmsw.datasets.coco_annotations import explain_coco_file
from mmsw.errors import DataError, UsageError
from mmsw.wording import listed


@dataclasses.dataclass(frozen=True)
class CocoSummary:
    """Of an annotation file.

    Attributes:
        path: The file.
        images: Names of the image files, in order.
        names: Of all categories, in order.
        left_out: Those that only hold others together, as exports of Roboflow have one.
        objects: Number of annotations.
        masks: Number of those that have a mask.
    """

    path: str
    images: tuple[str, ...]
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    objects: int
    masks: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Categories of objects, in order."""
        return tuple(name for name in self.names if name not in self.left_out)


def summary(path: str) -> CocoSummary:
    """Read an annotation file once, and remember what matters.

    Args:
        path: A local file that exists.

    Raises:
        DataError: If it is no such file, or two categories have one name.
    """
    status = os.stat(path)
    return _summary(os.path.abspath(path), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _summary(path: str, _changed: int, _size: int) -> CocoSummary:
    try:
        with open(path, encoding='utf-8-sig') as file:
            content = json.load(file)
        images = tuple(item['file_name'] for item in content['images'])
        categories = [(item['id'], str(item['name'])) for item in content['categories']]
        above = [(item['id'], item.get('supercategory')) for item in content['categories']]
        annotations = content.get('annotations') or []
        counts = Counter(item['category_id'] for item in annotations)
        masks = sum(bool(item.get('segmentation')) for item in annotations)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = explain_coco_file(path) or f'cannot be read ({type(error).__name__}: {error})'
        raise DataError(f'annotation file {path} {problem}') from error
    names = tuple(name for _, name in categories)
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise DataError(
            f'annotation file {path} has several categories of the name {listed(twice)}, which '
            'cannot be told apart: give every category a name of its own'
        )
    return CocoSummary(
        path=path,
        images=images,
        names=names,
        left_out=tuple(
            name
            for number, name in categories
            if not counts[number] and any(name == top for other, top in above if other != number)
        ),
        objects=len(annotations),
        masks=masks,
    )


def in_order(names: tuple[str, ...], found: CocoSummary) -> tuple[str, ...]:
    """Names of the config in the order of the file, by which mmdet numbers them.

    Raises:
        UsageError: If the file has no such category.
    """
    absent = [name for name in names if name not in found.names]
    if absent:
        near = get_close_matches(absent[0], found.names, 1)
        hint = f'. Did you mean {near[0]!r}?' if near else ''
        raise UsageError(
            f'own_data.classes names {listed(absent)}, but the categories of {found.path} are '
            f'{listed(found.names, 8)}{hint} (own_data.classes=None takes all of them)'
        )
    return tuple(name for name in found.names if name in names)
