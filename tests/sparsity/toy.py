"""A small sparse network under mmengine's real Runner, shared by the sparsity tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmsw.models import ShiftWiseNet

ARCH = dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])
POINTWISE = r'backbone\.stages\.\d+\.\d+\.pointwise_conv1\.weight$'
EMA = dict(type='EMAHook', momentum=0.3)


class ToyData(Dataset):
    """Eight images of 32 x 32 pixels with labels, the same in every process."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(8, 3, 32, 32, generator=generator)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index], label=torch.tensor(index % 4))


class ToyModel(BaseModel):
    """Backbone and linear classifier."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__()
        self.backbone = ShiftWiseNet(
            arch=ARCH, out_indices=(3,), layer_scale_init_value=1.0, init_cfg=init_cfg
        )
        self.classifier = nn.Linear(ARCH['dims'][-1], 4)

    def forward(self, inputs: Tensor, label: Tensor, mode: str = 'loss') -> dict | Tensor:
        logits = self.classifier(self.backbone(inputs)[0].mean((2, 3)))
        return dict(loss=F.cross_entropy(logits, label)) if mode == 'loss' else logits


def dynamic_hook(**settings) -> dict:
    """Half of the filters, exchanged every second iteration; arguments change that."""
    settings = {'start': 'uniform', 'sparsity': 0.5, 'interval': 2, **settings}
    return dict(type='DynamicSparsityHook', **settings)


def build_runner(
    work_dir: Path,
    checkpoint: str | Path | None,
    optim_wrapper: dict | None = None,
    max_iters: int = 4,
    hooks: list | None = None,
    cfg: dict | None = None,
    model: BaseModel | None = None,
    **kwargs,
) -> Runner:
    """A Runner that trains :class:`ToyModel`, or another one, and saves every second iteration."""
    init_cfg = checkpoint and dict(type='Pretrained', checkpoint=str(checkpoint))
    return Runner(
        model=ToyModel(init_cfg) if model is None else model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=ToyData(),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters),
        optim_wrapper=optim_wrapper
        or dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            logger=dict(type='LoggerHook', interval=100),
        ),
        custom_hooks=[dict(type='SparsityReportHook')] if hooks is None else hooks,
        randomness=dict(seed=0),
        experiment_name=work_dir.name,
        default_scope='mmengine',
        cfg=Config(cfg or {}),
        **kwargs,
    )


def train_with_log(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """Train; what mmengine's logger says, which does not propagate, is in ``caplog``."""
    runner.logger.addHandler(caplog.handler)
    try:
        runner.train()
    finally:
        runner.logger.removeHandler(caplog.handler)
