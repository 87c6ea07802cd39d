"""Configs and models that the tests of inference share."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmsw.apis import (
    register_toolbox,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    'mmseg': ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py',
    'mmdet': ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py',
}
both = pytest.mark.parametrize('scope', CONFIGS)


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        return MODELS.build(copy.deepcopy(cfg.model))


def write_data(scope: str, folder: Path) -> Path:
    """Two images per split in the layout of ADE20K or of COCO; returns their folder."""
    root = folder / 'data'
    splits = {'mmseg': ('training', 'validation'), 'mmdet': ('train', 'val')}[scope]
    for split in splits:
        places = [f'images/{split}', f'annotations/{split}'] if scope == 'mmseg' else [split]
        for place in places:
            (root / place).mkdir(parents=True)
        for index in range(2):
            picture = np.random.randint(0, 256, (64, 96, 3), dtype=np.uint8)
            cv2.imwrite(str(root / places[0] / f'{index}.jpg'), picture)
            if scope == 'mmseg':
                labels = np.random.randint(0, 151, (64, 96), dtype=np.uint8)
                cv2.imwrite(str(root / places[1] / f'{index}.png'), labels)
        if scope == 'mmdet':
            box = dict(bbox=[10, 10, 40, 30], area=1200, iscrowd=0, category_id=1)
            content = dict(
                images=[dict(id=i, file_name=f'{i}.jpg', height=64, width=96) for i in range(2)],
                annotations=[dict(id=i + 1, image_id=i, **box) for i in range(2)],
                categories=[dict(id=1, name='square')],
            )
            (root / 'annotations').mkdir(exist_ok=True)
            (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return root
