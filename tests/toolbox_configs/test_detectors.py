"""The backbone inside mmdetection's own configs: loss, backward pass, prediction."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from toolbox_configs import DIMS, SIDE, build, learn_and_predict, shift_wise
from torch import Tensor

pytest.importorskip('mmdet', reason='mmdet: not installed')
pytest.importorskip('mmcv.ops', reason='mmcv.ops: not compiled here')
from mmdet.models.detectors import TwoStageDetector
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks

ALL = dict(backbone=shift_wise(), neck=dict(in_channels=DIMS))
ALL_V1 = dict(backbone=shift_wise('v1'), neck=dict(in_channels=DIMS))
# Where the base begins at the second map, the finest one is not computed at all.
THREE = dict(backbone=shift_wise(out_indices=(1, 2, 3)), neck=dict(in_channels=DIMS[1:]))
FROM_SECOND = dict(THREE, neck=dict(in_channels=DIMS[1:], start_level=0))
LAST = dict(backbone=shift_wise(out_indices=(3,)), neck=dict(in_channels=DIMS[3:]))

# Config of mmdetection -> what the `model` of a user's config says.
CONFIGS = {
    'atss/atss_r50_fpn_1x_coco.py': FROM_SECOND,
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': ALL,
    'centernet/centernet-update_r50_fpn_8xb8-amp-lsj-200e_coco.py': FROM_SECOND,
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py': FROM_SECOND,
    'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py': LAST,
    'dab_detr/dab-detr_r50_8xb2-50e_coco.py': LAST,
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': THREE,
    'detr/detr_r50_8xb2-150e_coco.py': LAST,
    'dino/dino-4scale_r50_8xb2-12e_coco.py': THREE,
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': ALL_V1,
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': FROM_SECOND,
    'gfl/gfl_r50_fpn_1x_coco.py': FROM_SECOND,
    'htc/htc-without-semantic_r50_fpn_1x_coco.py': ALL,
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': dict(
        backbone=shift_wise(), panoptic_head=dict(in_channels=DIMS)
    ),
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py': dict(
        backbone=shift_wise('v1'), panoptic_head=dict(in_channels=DIMS)
    ),
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': ALL,
    'maskformer/maskformer_r50_ms-16xb1-75e_coco.py': dict(
        backbone=shift_wise(), panoptic_head=dict(in_channels=DIMS)
    ),
    'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py': ALL,
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py': ALL_V1,
    'retinanet/retinanet_r50_fpn_1x_coco.py': FROM_SECOND,
    'rtmdet/rtmdet_s_8xb32-300e_coco.py': THREE,
    'solov2/solov2_r50_fpn_1x_coco.py': ALL,
    'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py': ALL,
    'tood/tood_r50_fpn_1x_coco.py': FROM_SECOND,
    'yolof/yolof_r50-c5_8xb8-1x_coco.py': dict(
        backbone=shift_wise(out_indices=(3,)), neck=dict(in_channels=DIMS[3])
    ),
    'yolox/yolox_s_8xb8-300e_coco.py': THREE,
}


def sample(index: int) -> DetDataSample:
    boxes = torch.tensor([[6.0, 8, 40, 44], [20, 26, 62, 60]])[: 2 - index]
    masks = np.zeros((len(boxes), SIDE, SIDE), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([3, 1])[: len(boxes)],
        masks=BitmapMasks(masks, SIDE, SIDE),
    )
    size = dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), batch_input_shape=(SIDE, SIDE))
    found = DetDataSample(metainfo=dict(size, img_id=index, scale_factor=(1.0, 1.0), flip=False))
    found.gt_instances, found.ignored_instances = instances, InstanceData(bboxes=boxes[:0])
    labels = torch.full((1, SIDE, SIDE), 81)
    for mask, label in zip(masks, instances.labels, strict=True):
        labels[0, torch.from_numpy(mask).bool()] = label
    found.gt_sem_seg = PixelData(sem_seg=labels)
    return found


def images() -> list[Tensor]:
    return [torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8) for _ in range(2)]


@pytest.mark.parametrize('config', CONFIGS)
def test_detector(config: str, tmp_path: Path) -> None:
    model = build(tmp_path, f'mmdet::{config}', CONFIGS[config])
    samples = [sample(0), sample(1)]
    if config.startswith(('rtmdet/', 'yolox/')):  # their pipelines load no masks
        for item in samples:
            del item.gt_instances.masks
    results = learn_and_predict(model, 'mmdet', images(), samples)
    assert len(results) == 2
    for result in results:
        assert 'pred_instances' in result or 'pred_panoptic_seg' in result


def test_a_detector_and_its_average_in_training(tmp_path: Path) -> None:
    """Frozen stages, a moving average of the model, copies: what hooks do with a backbone."""
    change = dict(ALL, backbone=dict(shift_wise(), frozen_stages=1, norm_eval=True, with_cp=True))
    model = build(tmp_path, 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', change)
    average = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    copied = copy.deepcopy(model)
    assert isinstance(model, TwoStageDetector)
    assert model.backbone.frozen_stages == 1
    model.train()
    with DefaultScope.overwrite_default_scope('mmdet'):
        batch = dict(inputs=images(), data_samples=[sample(0), sample(1)])
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
        model.parse_losses(losses)[0].backward()
    for name, parameter in model.backbone.named_parameters():
        frozen = name.startswith(('downsample_layers.0.', 'stages.0.'))
        assert (parameter.grad is None) == frozen, name
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1 if parameter.requires_grad else 0)
    average.update_parameters(model)
    average.update_parameters(model)
    for name, parameter in copied.backbone.named_parameters():
        moved = average.module.backbone.get_parameter(name) - parameter
        frozen = name.startswith(('downsample_layers.0.', 'stages.0.'))
        assert bool((moved != 0).any()) != frozen, name
    assert torch.isfinite(torch.cat([p.flatten() for p in average.module.parameters()])).all()
