"""A training of a second that needs no toolbox, as a config for build_runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmsw.models import ShiftWiseNet

ARCH = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
POINTWISE = 'backbone.stages.0.0.pointwise_conv1'


@DATASETS.register_module()
class TinyData(Dataset):
    """Four images of 32 x 32 pixels with labels, the same in every process."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, lazy_init: bool = False, pipeline: Sequence = ()) -> None:
        del lazy_init, pipeline  # as mmengine's data sets have them
        self.images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index], label=torch.tensor(index % 2))


@MODELS.register_module()
class TinyModel(BaseModel):
    """Backbone, and a linear classifier on the mean of its last map."""

    def __init__(self, backbone: dict, classes: int = 2, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = nn.Linear(ARCH['dims'][-1], classes)

    def forward(self, inputs: Tensor, label: Tensor | None = None, mode: str = 'tensor'):
        logits = self.head(self.backbone(inputs)[-1].mean((2, 3)))
        if mode == 'loss':
            return dict(loss=F.cross_entropy(logits, label))
        return logits


def tiny_config(work_dir: Path, iterations: int = 2, **settings) -> Config:
    """Trains :class:`TinyModel` and saves every second iteration; settings replace keys."""
    backbone = dict(
        type='ShiftWiseNet',
        arch=ARCH,
        big_kernels=(7, 7, 5, 3),
        out_indices=(3,),
        layer_scale_init_value=1.0,
    )
    return Config(
        dict(
            default_scope='mmengine',
            work_dir=str(work_dir),
            model=dict(type='TinyModel', backbone=backbone),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(type='TinyData'),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
                logger=dict(type='LoggerHook', interval=100),
            ),
            randomness=dict(seed=0),
            **settings,
        )
    )


def tiny_net(**settings) -> ShiftWiseNet:
    """The backbone of :func:`tiny_config`, with other settings."""
    return MODELS.build({**tiny_config(Path()).model.backbone, **settings})
