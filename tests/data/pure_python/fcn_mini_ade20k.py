# A segmentor in mmengine's pure-Python style, which names no default_scope.
from mmcv.transforms import LoadImageFromFile, RandomFlip, Resize, TestTimeAug
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import LinearLR, OptimWrapper
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from mmseg.datasets import ADE20KDataset, LoadAnnotations, PackSegInputs
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor, SegTTAModel
from mmseg.models.losses import CrossEntropyLoss
from mmseg.visualization import SegLocalVisualizer
from torch import nn

import mmsw.models

with read_base():
    from .runtime import *  # noqa: F403

norm_cfg = dict(type=nn.SyncBatchNorm, requires_grad=True)
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, size=(64, 64), bgr_to_rgb=True),
    backbone=dict(
        type=mmsw.models.ShiftWiseNet,
        arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]),
        big_kernels=(7, 7, 5, 3),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type=FCNHead,
        in_channels=8,
        in_index=3,
        channels=8,
        num_convs=1,
        num_classes=150,
        norm_cfg=dict(type=nn.BatchNorm2d),
        act_cfg=dict(type=nn.ReLU),
        loss_decode=dict(type=CrossEntropyLoss),
        init_cfg=dict(type='Normal', std=0.2, override=dict(name='conv_seg')),
    ),
    test_cfg=dict(mode='whole'),
)
tta_model = dict(type=SegTTAModel)
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackSegInputs),
]
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations),
    dict(type=PackSegInputs),
]
tta_pipeline = [
    dict(type=LoadImageFromFile),
    dict(
        type=TestTimeAug,
        transforms=[
            [dict(type=Resize, scale_factor=1.0, keep_ratio=True)],
            [dict(type=RandomFlip, prob=0.0), dict(type=RandomFlip, prob=1.0)],
            [dict(type=LoadAnnotations)],
            [dict(type=PackSegInputs)],
        ],
    ),
]
data_root = 'data/ade'
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=ADE20KDataset,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=ADE20KDataset,
        data_root=data_root,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
test_evaluator = val_evaluator
train_cfg = dict(type=IterBasedTrainLoop, max_iters=2, val_interval=2)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
param_scheduler = [dict(type=LinearLR, start_factor=0.5, by_epoch=False, begin=0, end=9)]
optim_wrapper.update(dict(type=OptimWrapper))  # noqa: F405
default_hooks.update(dict(visualization=dict(type=SegVisualizationHook)))  # noqa: F405
custom_hooks += [dict(type=EMAHook, ema_type=ExponentialMovingAverage)]  # noqa: F405
visualizer = dict(type=SegLocalVisualizer, vis_backends=vis_backends)  # noqa: F405
