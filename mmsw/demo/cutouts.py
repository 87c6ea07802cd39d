"""The objects of the demonstration scenes one by one: a classification task for pretraining."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from mmsw.datasets.coco_annotations import explain_coco_file
from mmsw.errors import DataError
from mmsw.registration import register

_CONTEXT = 1.3  # side of what the network sees / longer side of the object
_TRIES = 50  # to find a place for a patch of background


@register(DATASETS)
class DemoCutouts(Dataset):
    """Annotated objects cut out of their scenes and enlarged, and a patch of background per scene.

    Classes are the categories of the annotation file in its order, and background after them. All
    cutouts are made at the start and kept in memory.

    Args:
        data_root: Folder ``coco`` of what ``tools/make_demo_data.py`` made.
        ann_file: Annotations in COCO's layout, below ``data_root``.
        data_prefix: ``dict(img=FOLDER)`` of the scenes, below ``data_root``.
        side: Of what a network sees of a cutout, in pixels.
        margin: Side of a cutout over that: room for random views.
        seed: Of the choice of background.

    Attributes:
        images: BGR, uint8, ``[n, s, s, 3]`` with ``s = round(side * margin)``; the object fills the
            middle.
        labels: int64, ``[n]``.
        metainfo: ``classes``: their names.

    Raises:
        DataError: If the annotations or an image cannot be used.
    """

    def __init__(
        self,
        data_root: str | os.PathLike[str],
        ann_file: str,
        data_prefix: dict[str, str],
        side: int = 64,
        margin: float = 1.6,
        seed: int = 0,
    ) -> None:
        coco = _read(Path(data_root, ann_file))
        class_of = {item['id']: index for index, item in enumerate(coco['categories'])}
        objects: dict[int, list[dict]] = {image['id']: [] for image in coco['images']}
        for item in coco['annotations']:
            objects[item['image_id']].append(item)

        rng = np.random.default_rng((seed, len(coco['images'])))
        images, labels = [], []
        for image in coco['images']:
            path = Path(data_root, data_prefix.get('img', ''), image['file_name'])
            scene = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if scene is None:
                raise DataError(f'{path} cannot be read; make the demo data again with --force')
            found = objects[image['id']]
            boxes = np.array([item['bbox'] for item in found], float).reshape(-1, 4)
            places = [(x + w / 2, y + h / 2, max(w, h)) for x, y, w, h in boxes]
            labels += [class_of[item['category_id']] for item in found]
            empty = _empty_place(boxes, scene.shape[0], scene.shape[1], rng)
            if empty is not None:
                places.append(empty)
                labels.append(len(class_of))
            images += [_cut(scene, *place, side, margin) for place in places]
        self.images = np.stack(images)
        self.labels = np.array(labels, np.int64)
        names = [item['name'] for item in coco['categories']]
        self.metainfo = {'classes': (*names, 'background')}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        """``inputs``: uint8 ``[3, s, s]``, BGR; ``labels``: the class, a number."""
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1)
        return {'inputs': image, 'labels': int(self.labels[index])}


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        problem = explain_coco_file(path) or f'cannot be read ({error})'
        raise DataError(f'annotation file {path} {problem}') from error


def _cut(
    scene: np.ndarray, x: float, y: float, length: float, side: int, margin: float
) -> np.ndarray:
    """The surroundings of a centre, as wide as random views need; outside is the mean colour."""
    stored = round(side * margin)
    scale = length * _CONTEXT / side
    start = np.array([x, y]) - 0.5 - scale * (stored - 1) / 2
    matrix = np.array([[scale, 0, start[0]], [0, scale, start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    colour = scene.reshape(-1, 3).mean(0)
    return cv2.warpAffine(scene, matrix, (stored, stored), flags=flags, borderValue=colour.tolist())


def _empty_place(
    boxes: np.ndarray, height: int, width: int, rng: np.random.Generator
) -> tuple[float, float, float] | None:
    """Centre and side of a random square apart from all boxes ``[x, y, w, h]``; None if none is."""
    for _ in range(_TRIES):
        side = rng.uniform(0.15, 0.4) * min(height, width)
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
        apart = (
            (boxes[:, 0] >= left + side)
            | (boxes[:, 0] + boxes[:, 2] <= left)
            | (boxes[:, 1] >= top + side)
            | (boxes[:, 1] + boxes[:, 3] <= top)
        )
        if apart.all():
            return left + side / 2, top + side / 2, side
    return None
