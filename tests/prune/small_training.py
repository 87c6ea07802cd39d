"""A small segmentor on a ResNet, and a checkpoint as a training run saves it."""

from __future__ import annotations

from pathlib import Path

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
