"""Fixtures of all tests: where the golden files are, and the same conditions for every test."""

import functools
import random
from collections.abc import Iterator
from pathlib import Path

import mmengine.config.utils
import numpy as np
import pytest
import torch
from mmengine.config import Config
from named_skips import (  # noqa: F401, hooks of pytest
    pytest_configure,
    pytest_make_collect_report,
    pytest_runtest_makereport,
)

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope='session', autouse=True)
def _metafiles_are_read_once() -> Iterator[None]:
    """mmengine parses a hundred of them for every base that a config takes from mmdet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.config.utils, 'load', functools.cache(mmengine.config.utils.load))
        yield


@pytest.fixture(scope='session')
def data_dir() -> Path:
    """Folder of the golden files."""
    return Path(__file__).parent / 'data'


@pytest.fixture(scope='module')
def plain_config_text() -> Iterator[None]:
    """Every runner prints its config; formatting it takes longer than all the rest."""
    text = property(
        lambda cfg: ''.join(f'{key} = {value!r}\n' for key, value in cfg.to_dict().items())
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'pretty_text', text)
        yield


@pytest.fixture
def ade_layout(tmp_path: Path) -> Path:
    """Empty folders in the layout of ADE20K."""
    for kind in ('images', 'annotations'):
        for split in ('training', 'validation'):
            (tmp_path / 'ade' / kind / split).mkdir(parents=True)
    return tmp_path / 'ade'


@pytest.fixture(autouse=True)
def _seed_everything() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
