"""A small network without anything of this project in it, and its zeros."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from toy import build_runner

from mmsw.checkpoint import load_checkpoint_file

PRUNED = {'backbone.conv1': 'filter', 'backbone.conv2': 'channel', 'fc': '2:4'}
KEEP = dict(type='KeepSparsityHook')


class PlainBackbone(BaseModule):
    """Two convolutions and a norm."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv2(F.gelu(self.norm(self.conv1(x)))))


class PlainModel(BaseModel):
    """A classifier, with a correction that starts at zero, as many heads have."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__()
        self.backbone = PlainBackbone(init_cfg)
        self.fc = nn.Linear(12, 8)
        self.head = nn.Linear(8, 4)
        self.correction = nn.Linear(8, 4)
        nn.init.zeros_(self.correction.weight)

    def forward(self, inputs: Tensor, label: Tensor, mode: str = 'loss') -> dict | Tensor:
        x = self.fc(self.backbone(inputs).mean((2, 3)))
        logits = self.head(x) + self.correction(x)
        return dict(loss=F.cross_entropy(logits, label)) if mode == 'loss' else logits


if 'PlainModel' not in MODELS:
    MODELS.register_module(module=PlainModel)


def kept(name: str, weight: Tensor) -> Tensor:
    """Where a weight of :data:`PRUNED` is not zero."""
    mask = torch.ones_like(weight, dtype=torch.bool)
    if PRUNED[name] == 'filter':
        mask[::2] = False
    elif PRUNED[name] == 'channel':
        mask[:, ::2] = False
    else:
        for row, kept_of in enumerate(mask):  # another two of each four in every row
            kept_of[row % 4 :: 4] = kept_of[(row + 1) % 4 :: 4] = False
    return mask


def pruned_state(seed: int = 0) -> dict[str, Tensor]:
    """State dict of a model whose layers :data:`PRUNED` have zeros."""
    torch.manual_seed(seed)
    state = PlainModel().state_dict()
    for name in PRUNED:
        weight = state[f'{name}.weight']
        weight.masked_fill_(~kept(name, weight), 0.0)
    return state


def saved(path: Path, state: dict[str, Tensor], **more: object) -> str:
    """Write a checkpoint that lacks the correction, a new layer; returns its path."""
    state = {key: value for key, value in state.items() if 'correction' not in key}
    torch.save({'meta': {}, 'state_dict': state, **more}, path)
    return str(path)


def by_hand() -> PlainModel:
    """A model that was initialised, and pruned by hand."""
    model = PlainModel()
    model.init_weights()
    model.load_state_dict(pruned_state())
    return model


def train(folder: Path, *hooks: dict | Hook, model: nn.Module | None = None, **settings) -> Runner:
    """Train for two iterations, with KeepSparsityHook if no hooks are given."""
    settings = {'max_iters': 2, **settings}
    model = PlainModel() if model is None else model
    runner = build_runner(folder, None, hooks=list(hooks) or [KEEP], model=model, **settings)
    runner.train()
    return runner


def assert_kept(path: Path, names: tuple[str, ...] = tuple(PRUNED), ema: bool = False) -> None:
    """What was pruned is zero in a file and in its masks, and the rest was trained."""
    checkpoint, start = load_checkpoint_file(path), pruned_state()
    for key in ('state_dict', 'ema_state_dict') if ema else ('state_dict',):
        state = {k.removeprefix('module.'): value for k, value in checkpoint[key].items()}
        assert sorted(k for k in state if k.endswith('.mask')) == sorted(f'{n}.mask' for n in names)
        for name in names:
            weight, mask = state[f'{name}.weight'], kept(name, state[f'{name}.weight'])
            assert torch.equal(state[f'{name}.mask'], mask)
            assert torch.count_nonzero(weight[~mask]) == 0
            assert not torch.equal(weight[mask], start[f'{name}.weight'][mask])
        assert torch.count_nonzero(state['correction.weight']) > 0, 'it is trained'
