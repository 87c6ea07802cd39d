"""The data and the configs that the files of own_v1 and own_v2 were written with."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from tiny_run import TinyData, tiny_config
from torch import Tensor

DIM, CLASSES = 8, ('one', 'two', 'three')
NAMES = ('converted', 'training', 'scope', 'folded')
BLOCKS = {'blocks_v1': dict(version='v1', small_kernel=3), 'blocks_v2': dict(version='v2')}
SCOPE = r'pointwise_conv1\.weight$|^head\.weight$'
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


def own_file(folder: Path, name: str, generation: int) -> Path:
    return folder / f'own_v{generation}_{name}.pth'


def picture() -> Tensor:
    """``[2, 3, 32, 32]``, from no random generator."""
    return torch.sin(torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)).float().view(2, 3, 32, 32)


@DATASETS.register_module()
class OwnFormatImages(TinyData):
    """Eight images of 32 x 32 pixels with labels, from no random generator."""

    metainfo = dict(classes=CLASSES)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        label = torch.tensor(index % len(CLASSES))
        return dict(inputs=torch.cos(picture()[0] * (index + 1)), label=label)


def own_config(name: str) -> Config:
    """The config that the file of this name was trained with, from iteration 0 to END."""
    hooks = [dict(type='DynamicSparsityHook', **HOOKS[name])] if name in HOOKS else []
    cfg = tiny_config(Path(), END, custom_hooks=[*hooks, dict(type='SparsityReportHook')])
    cfg.model.classes = len(CLASSES)
    cfg.model.backbone.update(VERSIONS.get(name, {}))
    cfg.train_dataloader.update(batch_size=4, dataset=dict(type='OwnFormatImages'))
    cfg.optim_wrapper.optimizer.lr = 0.05
    return cfg
