"""Batch norm on maps of 1 x 1, where a batch has one image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS, MODELS
from tiny_run import TinyData, TinyModel, tiny_config
from torch import nn

from mmsw.apis import UsageError, build_runner


@DATASETS.register_module()
class LargerData(TinyData):
    """Four images whose last map has four values."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.images = torch.randn(4, 3, 64, 64)


@MODELS.register_module()
class PoolingModel(TinyModel):
    """With a norm on the mean of each image, as pyramid pooling has it."""

    def __init__(self, norm: str = 'BatchNorm1d', **settings) -> None:
        super().__init__(**settings)
        self.head = nn.Sequential(getattr(nn, norm)(8), self.head)


def pooling(work_dir: Path, loader: dict, epochs: bool = False, norm: str = 'BatchNorm1d'):
    cfg = tiny_config(work_dir, iterations=2)
    cfg.model.update(type='PoolingModel', norm=norm)
    cfg.train_dataloader.update(loader, dataset=dict(type='LargerData'))
    if epochs:
        cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    return build_runner(cfg)


@pytest.mark.parametrize(
    ('loader', 'epochs', 'cure'),
    [
        (dict(batch_size=1), False, r'batch_size is 1: set .* train_dataloader\.batch_size=2 or'),
        (
            dict(batch_size=3),
            True,
            r'the last batch of a pass has one \(4 images, .*batch_size 3\): set .*drop_last=True,',
        ),
    ],
)
def test_it_is_refused_in_the_first_iteration(
    loader: dict, epochs: bool, cure: str, tmp_path: Path
) -> None:
    runner = pooling(tmp_path, loader, epochs)
    message = rf'batch norm head\.0 needs more than one image, .*{cure}.*num_groups=1\)$'
    with pytest.raises(UsageError, match=message) as caught:
        runner.train()
    assert runner.iter == 0
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('loader', 'epochs', 'norm'),
    [
        (dict(batch_size=3), False, 'BatchNorm1d'),  # the sampler never ends: no smaller batch
        (dict(batch_size=3, drop_last=True), True, 'BatchNorm1d'),
        (dict(batch_size=2), True, 'BatchNorm1d'),
        (dict(batch_size=1), False, 'LayerNorm'),
    ],
)
def test_what_torch_can_train_is_trained(
    loader: dict, epochs: bool, norm: str, tmp_path: Path
) -> None:
    runner = pooling(tmp_path, loader, epochs, norm)
    runner.train()
    assert runner.iter > 0
    assert not any(module._forward_pre_hooks for module in runner.model.head.modules())
