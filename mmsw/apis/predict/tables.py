"""The objects of all images in one file: COCO JSON or CSV, written as they come."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsw.whole_file import WholeFile

from .outcome import Objects, class_name
from .rle import encode
from .writers import Seen, Writer


class CocoWriter(Writer):
    """Writes a JSON file that pycocotools loads: images, annotations with scores, categories.

    Categories have the numbers 1, 2, ... in the order of the classes, images in the order in which
    they were predicted.

    Args:
        path: The file.
        classes: Names.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._file = WholeFile(path)
        self._out = self._file.temporary.open('w', encoding='utf-8')
        self._out.write('{"annotations": [')
        self._images: list[dict[str, Any]] = []
        self._classes = list(classes)
        self._number = 0

    def write(self, seen: Seen) -> None:
        number = len(self._images) + 1
        height, width = seen.size
        image = {'id': number, 'file_name': image_name(seen), 'height': height, 'width': width}
        if seen.frame is not None:
            image |= {'video': seen.source.name, 'frame_index': seen.frame}
        first = self._number + 1
        lines = [
            json.dumps({'id': index, 'image_id': number, **entry})
            for index, entry in enumerate(_entries(seen.outcome), first)
        ]
        if lines:
            self._out.write((',\n' if self._number else '\n') + ',\n'.join(lines))
        self._number += len(lines)
        self._images.append(image)

    def close(self, keep: bool) -> None:
        try:
            if not keep:
                return
            categories = [{'id': i, 'name': name} for i, name in enumerate(self._classes, 1)]
            for key, value in (('images', self._images), ('categories', categories)):
                lines = ',\n'.join(json.dumps(item, ensure_ascii=False) for item in value)
                self._out.write(f'\n],\n"{key}": [\n{lines}')
            self._out.write('\n]}\n')
            self._out.close()
            self._file.finish()
        finally:
            self._out.close()
            self._file.abandon()


class CsvWriter(Writer):
    """Writes a CSV file with one row per object.

    Args:
        path: The file.
        classes: Names.
    """

    COLUMNS = (
        'image', 'frame', 'width', 'height', 'class', 'category_id', 'score',
        'x1', 'y1', 'x2', 'y2', 'mask_rle',
    )  # fmt: skip

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._file = WholeFile(path)
        self._out = self._file.temporary.open('w', encoding='utf-8', newline='')
        self._rows = csv.writer(self._out)
        self._rows.writerow(self.COLUMNS)
        self._classes = classes

    def write(self, seen: Seen) -> None:
        height, width = seen.size
        frame = '' if seen.frame is None else seen.frame
        rows = []
        for entry in _entries(seen.outcome):
            x, y, wide, high = entry['bbox']
            name = class_name(self._classes, entry['category_id'] - 1)
            corners = (round(value, 2) for value in (x, y, x + wide, y + high))
            rle = entry.get('segmentation', {}).get('counts', '')
            image = (seen.source.name, frame, width, height)
            rows.append((*image, name, entry['category_id'], entry['score'], *corners, rle))
        self._rows.writerows(rows)

    def close(self, keep: bool) -> None:
        try:
            self._out.close()
            if keep:
                self._file.finish()
        finally:
            self._file.abandon()


def image_name(seen: Seen) -> str:
    """What an image is called in a file: its path below the input; a frame has its number too."""
    name = seen.source.name
    return name if seen.frame is None else f'{name}/{seen.frame:06d}'


def _entries(found: Objects) -> Iterator[dict[str, Any]]:
    """The objects of an image as COCO writes them, but for numbers of images."""
    for index in range(len(found.scores)):
        x1, y1, x2, y2 = (float(value) for value in found.boxes[index])
        box = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
        entry = {
            'category_id': int(found.labels[index]) + 1,
            'bbox': box,
            'area': round(box[2] * box[3], 2),
            'score': round(float(found.scores[index]), 5),
            'iscrowd': 0,
        }
        if found.masks is not None:
            mask = found.masks[index]
            entry['area'] = int(np.count_nonzero(mask.pixels))
            entry['segmentation'] = encode(mask, found.height, found.width)
        yield entry
