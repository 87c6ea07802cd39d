"""Configs and models that the tests of inference share."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmsw.apis import (
    register_toolbox,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    'mmseg': ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py',
    'mmdet': ROOT / 'tests' / 'data' / 'retinanet_mini_coco.py',
}
both = pytest.mark.parametrize('scope', CONFIGS)


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        return MODELS.build(copy.deepcopy(cfg.model))


def randomise(model: nn.Module) -> None:
    """Weights and statistics with which different images give different results."""
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if name.endswith(('conv_seg.weight', 'retina_cls.weight', 'retina_reg.weight')):
                param.normal_(std=0.2)
