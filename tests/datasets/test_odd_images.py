"""Images without objects and of one pixel width: training and testing go on."""

from __future__ import annotations

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_helpers import BOX, DETECTORS, ROOT, SEGMENTOR, annotation, picture
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn

from mmsw.apis import load_config, register_toolbox
from mmsw.apis.valid_loaders import with_valid_loaders


def mini_model(cfg: Config) -> nn.Module:
    register_toolbox(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))


def samples_of(cfg: Config, loader: str) -> list[dict]:
    register_toolbox(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(with_valid_loaders(cfg[loader].dataset, cfg))
        return [dataset[index] for index in range(len(dataset))]


def train_step_losses(model: nn.Module, samples: list[dict]) -> dict[str, torch.Tensor]:
    data = model.train().data_preprocessor(pseudo_collate(samples), True)
    losses, logged = model.parse_losses(model(**data, mode='loss'))
    losses.backward()
    for name, param in model.named_parameters():
        assert param.grad is None or param.grad.isfinite().all(), name
    return logged


def demo_detector(name: str, root: Path) -> Config:
    """A detector of the demonstration, smaller still, on other data."""
    cfg = load_config(ROOT / 'configs' / 'demo' / f'{name}_sw_mini_scenes.py', data_root=root)
    for loader, split in (('train_dataloader', 'train'), ('val_dataloader', 'val')):
        cfg[loader].dataset.update(
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=('square',)),
        )
    cfg.test_dataloader = cfg.val_dataloader
    cfg.model.backbone.arch = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
    cfg.model.backbone.big_kernels = (7, 7, 5, 3)
    cfg.model.neck.in_channels = [8] * len(cfg.model.neck.in_channels)
    return cfg


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_learn_from_images_without_objects(name: str, coco) -> None:
    cfg = demo_detector(name, coco(annotations=[annotation(0, 1)]))
    bare, full = samples_of(cfg, 'train_dataloader')
    assert len(bare['data_samples'].gt_instances) == 0
    model = mini_model(cfg)
    for batch in ([bare], [bare, copy.deepcopy(bare)], [bare, full]):
        losses = train_step_losses(model, copy.deepcopy(batch))
        assert all(value.isfinite().all() for value in losses.values()), losses
        assert losses['loss'] > 0


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors_take_images_of_one_pixel_width(name: str, coco) -> None:
    sizes = ((60, 1), (1, 60), (64, 96))
    boxes = [[0, 0, 1, 60], [0, 0, 60, 1], BOX]
    root = coco(sizes=sizes, annotations=[annotation(i, i, box) for i, box in enumerate(boxes)])
    cfg = demo_detector(name, root)
    # With 0, as in mmdet's Cascade R-CNN, an image narrower than every anchor has none to learn
    # from and mmdet stops; filter_cfg=dict(min_size=32), as in its COCO configs, skips such images.
    if 'rpn' in cfg.model.train_cfg:
        cfg.model.train_cfg.rpn.allowed_border = -1
    model = mini_model(cfg)
    losses = train_step_losses(model, samples_of(cfg, 'train_dataloader'))
    assert all(value.isfinite().all() for value in losses.values()), losses
    model.eval()
    for sample, size in zip(samples_of(cfg, 'val_dataloader'), sizes, strict=True):
        with torch.no_grad():
            (result,) = model.test_step(pseudo_collate([sample]))
        assert result.ori_shape == size
        assert result.pred_instances.bboxes.isfinite().all()

    cfg.train_dataloader.dataset.filter_cfg = dict(min_size=32)
    (kept,) = samples_of(cfg, 'train_dataloader')
    assert kept['data_samples'].ori_shape == (64, 96)


@pytest.mark.parametrize('mode', ['slide', 'whole'])
@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_segmentors_take_images_of_one_pixel_width(version: str, mode: str, ade: Path) -> None:
    for split in ('training', 'validation'):
        for index, shape in enumerate(((50, 1), (1, 50))):
            cv2.imwrite(str(ade / 'images' / split / f'{index}.jpg'), picture(*shape))
            labels = np.random.randint(1, 151, shape, dtype=np.uint8)
            cv2.imwrite(str(ade / 'annotations' / split / f'{index}.png'), labels)
    backbone = dict(version=version, big_kernels=(7, 7, 5, 5))
    cfg = load_config(SEGMENTOR, {'model.backbone': backbone}, ade)
    if mode == 'whole':
        cfg.model.test_cfg = dict(mode='whole')
    model = mini_model(cfg)
    losses = train_step_losses(model, samples_of(cfg, 'train_dataloader'))
    assert all(value.isfinite().all() for value in losses.values()), losses
    model.eval()
    for sample, shape in zip(samples_of(cfg, 'val_dataloader'), ((50, 1), (1, 50)), strict=True):
        with torch.no_grad():
            (result,) = model.test_step(pseudo_collate([sample]))
        assert result.pred_sem_seg.data.shape == (1, *shape)
        assert result.gt_sem_seg.data.shape == (1, *shape)
