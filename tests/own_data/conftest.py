"""Own data, written once for all tests that only read them."""

from pathlib import Path

import pytest
from own_data_helpers import write_detection, write_segmentation


@pytest.fixture(scope='session')
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmentation(tmp_path_factory.mktemp('segmentation'))


@pytest.fixture(scope='session')
def detection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detection(tmp_path_factory.mktemp('detection'))
