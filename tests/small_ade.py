"""Images and label maps of random values in the layout of ADE20K."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_ade(root: Path) -> Path:
    """Four training and two validation images; returns the folder."""
    rng = np.random.default_rng(0)
    for split, count in (('training', 4), ('validation', 2)):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
            labels = rng.integers(0, 151, (70, 90), dtype=np.uint8)
            cv2.imwrite(str(root / 'images' / split / f'{index}.jpg'), image)
            cv2.imwrite(str(root / 'annotations' / split / f'{index}.png'), labels)
    return root
