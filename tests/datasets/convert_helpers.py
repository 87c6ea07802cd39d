"""What the tests of conversions share."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from mmsw.datasets.convert import Converted, Request, convert

HEIGHT, WIDTH = 20, 30


def save_picture(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.randint(0, 256, (height, width, 3), dtype=np.uint8))
    return path


def save_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding='utf-8')
    return path


def converted(kind: str, source: Path, out: Path, **settings) -> Converted:
    return convert(Request(kind, source, out, **settings), lambda *_: None)


def coco_of(out: Path, part: str = 'train') -> dict:
    return json.loads((out / 'annotations' / f'{part}.json').read_text(encoding='utf-8'))


def objects_of(out: Path, part: str = 'train') -> list[tuple]:
    """File, class, box and whether it is a crowd, of each object in order."""
    content = coco_of(out, part)
    names = {item['id']: item['name'] for item in content['categories']}
    files = {item['id']: item['file_name'] for item in content['images']}
    return [
        (files[item['image_id']], names[item['category_id']], item['bbox'], item['iscrowd'])
        for item in content['annotations']
    ]


def labels_of(out: Path, name: str, part: str = 'train') -> np.ndarray:
    return cv2.imread(str(out / 'labels' / part / name), cv2.IMREAD_UNCHANGED)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())
