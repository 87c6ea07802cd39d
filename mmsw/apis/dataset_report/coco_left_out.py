"""What a data set of mmdetection leaves out of a COCO annotation file without a word."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any

NO_AREA = 'boxes without area, or narrower than one pixel'
OUTSIDE = 'boxes outside of their image'
OTHER_CLASS = 'annotations of other categories'
NO_IMAGE = 'annotations of images that are not listed'
IMAGES = 'images that filter_cfg or indices leave out'


def left_out(dataset: Any) -> Counter:
    """Count what a data set does not take from its annotation file.

    Args:
        dataset: A built data set; one that does not read COCO files as mmdetection does has nothing
            to say.

    Returns:
        Number of annotations, or of images, by reason.
    """
    path = getattr(dataset, 'ann_file', None)
    reads = getattr(type(dataset), 'load_data_list', None)
    if getattr(reads, '__qualname__', '') != 'CocoDataset.load_data_list':
        return Counter()
    if not (isinstance(path, str) and path.endswith('.json') and os.path.isfile(path)):
        return Counter()
    with open(path, encoding='utf-8') as file:
        whole = json.load(file)
    sizes = {item['id']: (item['width'], item['height']) for item in whole['images']}
    wanted = {*getattr(dataset, 'cat_ids', ())}
    found: Counter = Counter()
    for item in whole['annotations']:
        reason = None if item.get('ignore') else _reason(item, sizes, wanted)
        if reason:
            found[reason] += 1
    if len(sizes) > len(dataset):
        found[IMAGES] = len(sizes) - len(dataset)
    return found


def _reason(item: dict, sizes: dict[Any, tuple[int, int]], wanted: set) -> str | None:
    if item['image_id'] not in sizes:
        return NO_IMAGE
    left, top, width, height = item['bbox']
    if width < 1 or height < 1 or item['area'] <= 0:
        return NO_AREA
    inside = [
        min(start + length, end) - max(start, 0)
        for start, length, end in zip(
            (left, top), (width, height), sizes[item['image_id']], strict=True
        )
    ]
    if min(inside) <= 0:
        return OUTSIDE
    return OTHER_CLASS if item['category_id'] not in wanted else None
