"""Fixtures of all tests: where the golden files are, and the same conditions for every test."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope='session')
def data_dir() -> Path:
    """Folder of the golden files."""
    return Path(__file__).parent / 'data'


@pytest.fixture(autouse=True)
def _seed_everything() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
