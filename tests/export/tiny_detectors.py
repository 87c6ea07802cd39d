"""Detectors of the shipped configs, so narrow that a test can export them, with many detections."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from mmdet.models import FCNMaskHead
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmsw.apis import init_model

CLASSES = 4
_CHANNELS = 16
_SPREAD = {'rpn_cls': 0.3, 'rpn_reg': 0.3, 'fc_cls': 0.03, 'fc_reg': 0.2}
_SPREAD |= {'retina_cls': 0.02, 'retina_reg': 0.06}


def tiny_config(file: str) -> Config:
    """A detection config of the repository with a tiny model."""
    cfg = Config.fromfile(f'configs/{file}')
    model = cfg.model
    model.backbone.update(
        arch=dict(depths=[1, 1, 1, 1], dims=[16, 24, 32, 40]), big_kernels=(7, 7, 5, 5)
    )
    first = 1 if model.type == 'RetinaNet' else 0
    model.neck.update(in_channels=[16, 24, 32, 40][first:], out_channels=_CHANNELS)
    if model.type == 'RetinaNet':
        _narrow(model.bbox_head, feat_channels=_CHANNELS, stacked_convs=1)
        model.test_cfg.update(nms_pre=300, max_per_img=30)
        return cfg
    model.rpn_head.update(in_channels=_CHANNELS, feat_channels=_CHANNELS)
    roi_head = model.roi_head
    for extractor in (roi_head.bbox_roi_extractor, roi_head.mask_roi_extractor):
        extractor.out_channels = _CHANNELS
    heads = roi_head.bbox_head if isinstance(roi_head.bbox_head, list) else [roi_head.bbox_head]
    for head in heads:
        _narrow(head, fc_out_channels=32, conv_out_channels=_CHANNELS)
        if 'num_shared_convs' in head:
            head.num_shared_convs = 1
    _narrow(roi_head.mask_head, conv_out_channels=_CHANNELS, num_convs=1)
    model.test_cfg.rpn.update(nms_pre=100, max_per_img=40)
    model.test_cfg.rcnn.max_per_img = 20
    return cfg


def _narrow(head: dict[str, Any], **sizes: int) -> None:
    head.update(sizes, in_channels=_CHANNELS, num_classes=CLASSES)


def build(cfg: Config, seed: int = 0) -> nn.Module:
    """The folded model; its heads find boxes of all classes, which overlap."""
    torch.manual_seed(seed)
    cfg = Config(cfg.to_dict())
    dataset = dict(type='CocoDataset', metainfo=dict(classes=tuple('abcdefghij'[:CLASSES])))
    cfg.test_dataloader = dict(dataset=dataset)
    model = init_model(cfg, deploy=True)
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        spread = _SPREAD.get(name.split('.')[-2])
        if spread is not None and name.endswith('weight'):
            parameter.data.normal_(0, spread, generator=draw)
        if name == 'bbox_head.retina_cls.bias':
            parameter.data.fill_(-3)
    return model


@torch.no_grad()
def by_mmdet(model: nn.Module, image: Tensor) -> InstanceData:
    """What mmdet finds in an image ``[1, C, H, W]``, at the size of the image.

    Masks are the probabilities of each one's own class.
    """
    shape = tuple(image.shape[2:])
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
    height, width = shape
    divisor = model.data_preprocessor.pad_size_divisor
    image = F.pad(image, (0, -width % divisor, 0, -height % divisor))
    with patch.object(FCNMaskHead, '_predict_by_feat_single', _own_probabilities):
        (sample,) = model.predict(image, [DetDataSample(metainfo=meta)], rescale=False)
    return sample.pred_instances


def _own_probabilities(
    head: nn.Module, mask_preds: Tensor, labels: Tensor, activate_map: bool = False, **_: Any
) -> Tensor:
    """Stands in for pasting masks into the image."""
    found = mask_preds if activate_map else mask_preds.sigmoid()
    return found[:, 0] if head.class_agnostic else found[range(len(labels)), labels]
