"""Pictures, annotations and configs that the tests of data share."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmsw.apis import register_toolbox

ROOT = Path(__file__).resolve().parents[2]
SEGMENTOR = ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py'
DETECTOR = ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py'
DETECTORS = ['mask_rcnn', 'cascade_mask_rcnn', 'retinanet']
BOX = [10, 10, 40, 30]
PIPELINE = [dict(type='LoadValidImageFromFile'), dict(type='LoadValidAnnotations')]
SQUARE = [dict(id=1, name='square')]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(suffix: str, height: int = 48, width: int = 64) -> bytes:
    return cv2.imencode(suffix, picture(height, width))[1].tobytes()


def annotation(number: int, image: int, box: list[float] = BOX, category: int = 1) -> dict:
    x, y, width, height = box
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    return dict(
        id=number, image_id=image, bbox=box, area=width * height, iscrowd=0,
        category_id=category, segmentation=[polygon],
    )  # fmt: skip


def images_of(*sizes: tuple[int, int]) -> list[dict]:
    return [
        dict(id=index, file_name=f'{index}.jpg', height=height, width=width)
        for index, (height, width) in enumerate(sizes)
    ]


def exif_picture(path: Path, size: tuple[int, int], orientation: int) -> None:
    """Saves noise of a height and width that is to be shown turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(*size)).save(path, exif=exif)


@functools.cache
def register_mmseg() -> None:
    """Once, since it takes half a second."""
    register_toolbox(Config(dict(default_scope='mmseg')))


def segmentation_data(root: Path, **settings) -> BaseDataset:
    """mmseg's data set of the folders ``img`` and ``ann``; settings replace arguments."""
    register_mmseg()
    given = dict(
        type='BaseSegDataset',
        metainfo=dict(classes=('a', 'b')),
        data_root=str(root),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        pipeline=PIPELINE,
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build({**given, **settings})
