"""Own data of a few pictures, and configs that train on them in a second."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from mmsw.apis import load_config
from mmsw.apis.named_configs import config_path

CLASSES = ('background', 'road', 'car')
# Settings that make two iterations of the small configs cheap.
TINY = {
    'own_data.batch_size': 2,
    'own_data.max_iters': 2,
    **{
        f'{split}_dataloader.{key}': value
        for split in ('train', 'val', 'test')
        for key, value in (('num_workers', 0), ('persistent_workers', False))
    },
}


@functools.cache
def unfilled(name: str) -> Config:
    """A config of the package as it is written, read once."""
    return Config.fromfile(config_path(Path(name)))


def load(config: str, root: Path | None = None, **own) -> Config:
    """The config with keys of ``own_data``; two underscores stand for a dot."""
    options = {f'own_data.{key.replace("__", ".")}': value for key, value in own.items()}
    return load_config(unfilled(config), options, root)


def saved(cfg: Config) -> Config:
    """The config as a run writes it, without the formatting, which takes seconds."""
    copied = Config(cfg.to_dict(), format_python_code=False)
    return Config.fromstring(copied.pretty_text, '.py')


def write_picture(path: Path, height: int = 48, width: int = 64, channels: int = 3) -> None:
    """Noise; label maps have one channel and the values 0 to 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if channels == 3:
        image = np.random.randint(0, 256, (height, width, 3), dtype=np.uint8)
    else:
        image = np.random.randint(0, 3, (height, width), dtype=np.uint8)
    assert cv2.imwrite(str(path), image)


def write_segmentation(root: Path, train: int = 4, val: int = 2, suffix: str = '.jpg') -> Path:
    """Folders images/{train,val} and labels/{train,val}; one image lies in a folder of its own."""
    for split, number in (('train', train), ('val', val)):
        for index in range(number):
            name = f'inside/{index}' if index == 1 else f'{index}'
            write_picture(root / 'images' / split / f'{name}{suffix}')
            write_picture(root / 'labels' / split / f'{name}.png', channels=1)
    return root


def coco_content(
    number: int, categories: list[dict] | None = None, masks: bool = True, category: int = 1
) -> dict:
    """One object of 20 pixels per image."""
    box = [8, 10, 20, 20]
    polygon = [[8, 10, 28, 10, 28, 30, 8, 30]]
    return dict(
        images=[
            dict(id=index, file_name=f'{index}.jpg', height=48, width=64) for index in range(number)
        ],
        annotations=[
            dict(id=index, image_id=index, bbox=box, area=400, iscrowd=0, category_id=category)
            | (dict(segmentation=polygon) if masks else {})
            for index in range(number)
        ],
        categories=categories or [dict(id=1, name='cell'), dict(id=2, name='other')],
    )


def write_detection(root: Path, train: int = 4, val: int = 2, **settings) -> Path:
    """Folders train and val, and annotations/{train,val}.json."""
    for split, number in (('train', train), ('val', val)):
        for index in range(number):
            write_picture(root / split / f'{index}.jpg')
        path = root / 'annotations' / f'{split}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(coco_content(number, **settings)))
    return root
