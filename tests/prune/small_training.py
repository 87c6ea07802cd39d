"""A small segmentor on a ResNet, its data, and a checkpoint as a training run saves it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from lively_weights import randomise

from mmsw.apis import init_model

ROOT = Path(__file__).resolve().parents[2]
SHIFT_WISE = ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py'
DETECTOR = ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py'
_RESNET = f"""
_base_ = [{str(SHIFT_WISE)!r}]
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True, type='ResNetV1c', depth=18, base_channels=8, stem_channels=8,
        num_stages=4, out_indices=(0, 1, 2, 3), norm_cfg=norm_cfg, frozen_stages=FROZEN,
    ),
    decode_head=dict(in_channels=[8, 16, 32, 64], norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=32, norm_cfg=norm_cfg),
)
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)
)
"""


def write_config(path: Path, frozen_stages: int = -1, more: str = '') -> Path:
    """A config of mmseg with a ResNet-18 of eight channels."""
    path.write_text(_RESNET.replace('FROZEN', str(frozen_stages)) + more, encoding='utf-8')
    return path


def write_checkpoint(config: Path, path: Path, **more: object) -> Path:
    """Random weights of the model of a config, with what else a run saves."""
    torch.manual_seed(0)
    model = init_model(config)
    randomise(model)
    meta = dict(epoch=0, iter=7, dataset_meta=dict(classes=('a', 'b')), seed=5)
    torch.save({'meta': meta, 'state_dict': model.state_dict(), **more}, path)
    return path


def write_data(root: Path) -> Path:
    """Four training and two validation images in the layout of ADE20K."""
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


def tool(name: str, *words: object) -> int:
    """The exit code of a tool of the repository."""
    before = sys.argv
    sys.argv = [f'{name}.py']
    try:
        main = runpy.run_path(str(ROOT / 'tools' / f'{name}.py'))['main']
        return main([str(word) for word in words])
    finally:
        sys.argv = before
