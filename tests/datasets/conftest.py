"""Small data sets in the layouts of COCO and ADE20K."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_helpers import SQUARE, annotation, images_of, picture


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes two splits in COCO format and returns their folder; a part of None is left out."""

    def write(
        split: str = 'train', sizes: tuple = ((64, 96), (64, 96)), text: str | None = None, **parts
    ) -> Path:
        root = tmp_path / 'coco'
        whole = dict(
            images=images_of(*sizes),
            annotations=[annotation(index, index) for index in range(len(sizes))],
            categories=SQUARE,
        )
        for name in ('train', 'val'):
            (root / 'annotations').mkdir(parents=True, exist_ok=True)
            (root / name).mkdir(exist_ok=True)
            for index, size in enumerate(sizes):
                cv2.imwrite(str(root / name / f'{index}.jpg'), picture(*size))
            everything = {**whole, **(parts if name == split else {})}
            everything = {key: value for key, value in everything.items() if value is not None}
            path = root / 'annotations' / f'{name}.json'
            path.write_text(json.dumps(everything) if text is None or name != split else text)
        return root

    return write


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """Two images with label maps per split in the layout of ADE20K."""
    root = tmp_path / 'ade'
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for index in range(2):
            cv2.imwrite(str(root / 'images' / split / f'{index}.jpg'), picture(70, 90))
            labels = np.random.randint(0, 151, (70, 90), dtype=np.uint8)
            cv2.imwrite(str(root / 'annotations' / split / f'{index}.png'), labels)
    return root
