"""A segmentor and a detector that train on random images, with a teacher of their kind."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from mmdet.registry import DATASETS as DETECTION_DATA
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from mmseg.registry import DATASETS as SEGMENTATION_DATA
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

from mmsw.apis import build_runner, init_model
from mmsw.checkpoint import save_checkpoint_file

DIMS = [8, 8, 8, 8]
SIZE = (40, 56)  # neither square nor a multiple of the stride
LOGITS = dict(weight=3.0, temperature=4.0)
NORMALISATION = dict(mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True)


class _Images(Dataset):
    """Four random images, the same in every process."""

    metainfo = dict(classes=('a', 'b', 'c'))

    def __init__(self, lazy_init: bool = False, pipeline: tuple = ()) -> None:
        del lazy_init, pipeline  # as mmengine's data sets have them
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (4, 3, *SIZE), generator=generator, dtype=torch.uint8)
        self.labels = torch.randint(0, 3, (4, 1, *SIZE), generator=generator)

    def __len__(self) -> int:
        return len(self.images)


@SEGMENTATION_DATA.register_module()
class LabelledPixels(_Images):
    """With a label for every pixel."""

    def __getitem__(self, index: int) -> dict:
        sample = SegDataSample(metainfo=dict(img_shape=SIZE, ori_shape=SIZE))
        sample.gt_sem_seg = PixelData(data=self.labels[index])
        return dict(inputs=self.images[index], data_samples=sample)


@DETECTION_DATA.register_module()
class BoxedObjects(_Images):
    """With two boxes each."""

    def __getitem__(self, index: int) -> dict:
        meta = dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0), img_id=index)
        boxes = torch.tensor([[2.0, 3.0, 20.0, 24.0], [18.0, 10.0, 50.0, 36.0]])
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([index % 3, 1]))
        return dict(inputs=self.images[index], data_samples=sample)


def _backbone(**settings) -> dict:
    backbone = dict(
        type='ShiftWiseNet',
        arch=dict(depths=[1, 1, 1, 1], dims=DIMS),
        big_kernels=(7, 7, 5, 3),
        layer_scale_init_value=1.0,
        drop_path_rate=0.2,
    )
    return {**backbone, **settings}


def segmentor(num_classes: int = 3, width: int = 8, **backbone) -> dict:
    """FCN on two stages; ``width`` is that of the head."""
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=SIZE, **NORMALISATION),
        backbone=_backbone(out_indices=(0, 1), **backbone),
        decode_head=dict(
            type='FCNHead',
            in_channels=DIMS[1],
            in_index=1,
            channels=width,
            num_convs=1,
            dropout_ratio=0.1,
            num_classes=num_classes,
            norm_cfg=dict(type='BN'),
            align_corners=False,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def detector(**backbone) -> dict:
    """RetinaNet on three levels."""
    return dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32, **NORMALISATION),
        backbone=_backbone(**backbone),
        neck=dict(type='FPN', in_channels=DIMS, start_level=1, out_channels=8, num_outs=3),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=8,
            stacked_convs=1,
            feat_channels=8,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[8, 16, 32],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        test_cfg=dict(nms_pre=10, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5)),
    )


def training(
    work_dir: Path,
    model: dict,
    hooks: list | tuple = (),
    iterations: int = 4,
    seed: int = 0,
    **settings,
) -> Config:
    """Trains a model and saves every second iteration; settings replace keys."""
    segments = model['type'] == 'EncoderDecoder'
    base = dict(
        default_scope='mmseg' if segments else 'mmdet',
        work_dir=str(work_dir),
        model=model,
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=dict(type='LabelledPixels' if segments else 'BoxedObjects'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            logger=dict(type='LoggerHook', interval=1),
        ),
        custom_hooks=list(hooks),
        randomness=dict(seed=seed),
    )
    return Config({**base, **settings})


def trained(cfg: Config, *spies: Hook, **how) -> Runner:
    """The runner after its training, which hooks have watched."""
    runner = build_runner(cfg, **how)
    for spy in spies:
        runner.register_hook(spy)
    runner.train()
    return runner


def make_teacher(folder: Path, model: dict, seed: int = 7, classes: tuple | None = None) -> dict:
    """Config and checkpoint of a network with values of a seed, as a training leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = training(folder, model)
    cfg.dump(folder / 'config.py')
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # no checkpoint
        network = init_model(cfg)
    meta = dict(dataset_meta=dict(classes=classes or _Images.metainfo['classes']))
    save_checkpoint_file(dict(meta=meta, state_dict=network.state_dict()), folder / 'final.pth')
    return dict(config=str(folder / 'config.py'), checkpoint=str(folder / 'final.pth'))


def weights(runner: Runner) -> dict[str, torch.Tensor]:
    """A copy of the state of the model."""
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names of what is not bit for bit the same in both."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]
