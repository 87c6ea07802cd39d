"""Tiny models of both tasks with saved weights, and a photo."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from inference_helpers import CONFIGS, build
from lively_weights import randomise
from mmengine.registry import DefaultScope
from torch import nn

from mmsw.apis import (
    init_model,
    load_config,
)


@pytest.fixture
def quiet() -> Iterator[None]:
    """The toolboxes' programs set a default scope for good, and warn of what they do themselves."""
    with warnings.catch_warnings(), DefaultScope.overwrite_default_scope('mmengine'):
        warnings.simplefilter('ignore')
        yield


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file per scope as a training run in several processes saves it, without dataset_meta."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('checkpoints')
    paths = {}
    for scope, config in CONFIGS.items():
        model = build(load_config(config))
        randomise(model)
        state = {f'module.{name}': value for name, value in model.state_dict().items()}
        paths[scope] = folder / f'{scope}.pth'
        torch.save({'meta': {'epoch': 1}, 'state_dict': state}, paths[scope])
    return paths


@pytest.fixture(scope='session')
def models(checkpoints: dict[str, Path]) -> dict[str, nn.Module]:
    return {scope: init_model(CONFIGS[scope], checkpoints[scope]) for scope in CONFIGS}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / 'photo.png'
    small = np.random.randint(0, 256, (6, 9, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(small, (87, 61), interpolation=cv2.INTER_CUBIC))
    return path
