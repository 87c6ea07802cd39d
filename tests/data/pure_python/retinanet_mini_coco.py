# A detector in mmengine's pure-Python style, with default_scope=None as mmdet's own have it.
from mmcv.ops import nms
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.evaluation import CocoMetric
from mmdet.models import FPN, DetDataPreprocessor, FocalLoss, L1Loss, RetinaHead, RetinaNet
from mmdet.models.task_modules import (
    AnchorGenerator,
    DeltaXYWHBBoxCoder,
    MaxIoUAssigner,
    PseudoSampler,
)
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler, InfiniteSampler, RepeatDataset
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop

from mmsw.models import ShiftWiseNet

with read_base():
    from .runtime import *  # noqa: F403

default_scope = None
dims = [8, 8, 8, 8]
model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(
        type=ShiftWiseNet,
        arch=dict(depths=[1, 1, 1, 1], dims=dims),
        big_kernels=(7, 7, 5, 3),
    ),
    neck=dict(
        type=FPN,
        in_channels=dims,
        out_channels=8,
        start_level=1,
        add_extra_convs='on_input',
        num_outs=5,
    ),
    bbox_head=dict(
        type=RetinaHead,
        num_classes=1,
        in_channels=8,
        stacked_convs=1,
        feat_channels=8,
        anchor_generator=dict(
            type=AnchorGenerator,
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True),
        loss_bbox=dict(type=L1Loss),
    ),
    train_cfg=dict(
        assigner=dict(
            type=MaxIoUAssigner,
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1,
        ),
        sampler=dict(type=PseudoSampler),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=100,
        min_bbox_size=0,
        score_thr=0.0,
        nms=dict(type=nms, iou_threshold=0.5),
        max_per_img=5,
    ),
)
data_root = 'data/coco/'
pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(96, 64), keep_ratio=True),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(
        type=PackDetInputs,
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type=InfiniteSampler),
    dataset=dict(
        type=RepeatDataset,
        times=1,
        dataset=dict(
            type=CocoDataset,
            data_root=data_root,
            metainfo=dict(classes=('square',)),
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            pipeline=pipeline,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=CocoDataset,
        data_root=data_root,
        metainfo=dict(classes=('square',)),
        test_mode=True,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        pipeline=pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=CocoMetric, ann_file=data_root + 'annotations/val.json', metric='bbox')
test_evaluator = val_evaluator
train_cfg = dict(type=IterBasedTrainLoop, max_iters=2, val_interval=2)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper.update(dict(type=OptimWrapper))  # noqa: F405
default_hooks.update(dict(visualization=dict(type=DetVisualizationHook)))  # noqa: F405
visualizer = dict(type=DetLocalVisualizer, vis_backends=vis_backends)  # noqa: F405
