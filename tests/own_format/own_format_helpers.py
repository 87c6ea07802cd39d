"""The network, the data and the configs that the files of own_v1 were written with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

DIM, CLASSES = 8, 3
NAMES = ('converted', 'training', 'scope', 'folded')
SCOPE = r'pointwise_conv1\.weight$|^head\.weight$'
BACKBONE = dict(
    type='ShiftWiseNet',
    arch=dict(depths=[1, 1, 1, 1], dims=[DIM] * 4),
    big_kernels=(7, 7, 5, 3),
    out_indices=(3,),
    layer_scale_init_value=1.0,
)
HOOKS = {
    'training': dict(
        start='snip',
        sparsity=0.5,
        interval=1,
        prune_rate=0.5,
        grow='momentum',
        align_interval=2,
    ),
    'scope': dict(
        start='uniform',
        sparsity=0.5,
        interval=1,
        prune_rate=0.5,
        granularity='weight',
        scope=SCOPE,
    ),
}
VERSIONS = {'scope': dict(version='v1', small_kernel=3)}
SAVED_AT, END = 2, 4  # iterations


def own_file(folder: Path, name: str) -> Path:
    return folder / f'own_v1_{name}.pth'


def picture() -> Tensor:
    """``[2, 3, 32, 32]``, from no random generator."""
    return torch.sin(torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)).float().view(2, 3, 32, 32)


@DATASETS.register_module()
class OwnFormatImages(Dataset):
    """Eight images of 32 x 32 pixels with labels, from no random generator."""

    metainfo = dict(classes=('one', 'two', 'three'))

    def __init__(self, lazy_init: bool = False, pipeline: Sequence = ()) -> None:
        del lazy_init, pipeline  # as mmengine's data sets have them

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return dict(
            inputs=torch.cos(picture()[0] * (index + 1)), label=torch.tensor(index % CLASSES)
        )


@MODELS.register_module()
class OwnFormatModel(BaseModel):
    """A backbone, and a linear classifier on the mean of its last map."""

    def __init__(self, backbone: dict, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, inputs: Tensor, label: Tensor | None = None, mode: str = 'tensor') -> Any:
        logits = self.head(self.backbone(inputs)[-1].mean((2, 3)))
        return dict(loss=F.cross_entropy(logits, label)) if mode == 'loss' else logits


def own_config(name: str, **backbone: Any) -> Config:
    """The config that ``own_v1_NAME.pth`` was trained with, from iteration 0 to END."""
    backbone = dict(BACKBONE, **VERSIONS.get(name, {}), **backbone)
    hooks = [dict(type='DynamicSparsityHook', **HOOKS[name])] if name in HOOKS else []
    return Config(
        dict(
            default_scope='mmengine',
            model=dict(type='OwnFormatModel', backbone=backbone),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(type='OwnFormatImages'),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=END),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=SAVED_AT),
                logger=dict(type='LoggerHook', interval=1),
            ),
            custom_hooks=[*hooks, dict(type='SparsityReportHook')],
            randomness=dict(seed=0),
        )
    )
