"""A tiny network and data that the tests of the benchmark of sparse training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from sparse_training_helpers import MINI
from study_helpers import make_scenes, write_config

from mmsw.apis import load_config


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory, 8)


@pytest.fixture(scope='session')
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's pretraining with a network of a test's size."""
    return write_config(tmp_path_factory, MINI)


@pytest.fixture
def cfg(mini: Path, data: Path) -> Config:
    return load_config(mini, data_root=data / 'coco')
