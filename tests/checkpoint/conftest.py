"""The golden mini checkpoints, in the authors' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmsw.models import ShiftWiseNet

MINI = dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])


def read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location='cpu', weights_only=True)


@pytest.fixture
def published_path(data_dir: Path) -> Path:
    return data_dir / 'backbone_v2_mini_checkpoint.pth'


@pytest.fixture
def published(published_path: Path) -> dict[str, Any]:
    """Contents of the v2 file, fresh for every test."""
    return read(published_path)


@pytest.fixture
def published_model(published: dict[str, Any]) -> dict[str, Tensor]:
    return published['model']


@pytest.fixture
def build_net():
    """Builds the mini network; ``weights`` names the file of its init_cfg and loads it."""

    def build(weights: Any = None, **kwargs: Any) -> ShiftWiseNet:
        init_cfg = None if weights is None else dict(type='Pretrained', checkpoint=weights)
        net = ShiftWiseNet(**{'arch': MINI, 'init_cfg': init_cfg, **kwargs}).eval()
        if init_cfg:
            net.init_weights()
        return net

    return build
