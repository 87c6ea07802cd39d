"""What every run starts from, and the judge of what it wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmsw.checkpoint import load_checkpoint_file, load_release_checkpoint

_PATH = re.compile(r'\.paths\.\d+\.weight$')


@pytest.fixture(scope='session')
def sparse_checkpoint(data_dir: Path) -> Path:
    """A published-style file with about 30% of its small filters zero."""
    return data_dir / 'backbone_v2_mini_checkpoint.pth'


@pytest.fixture(scope='session')
def published(sparse_checkpoint: Path) -> dict[str, Tensor]:
    """Small kernels of that file by name."""
    state = load_release_checkpoint(sparse_checkpoint)
    return {key: tensor for key, tensor in state.items() if _PATH.search(key)}


@pytest.fixture
def lost_zeros(published: dict[str, Tensor]) -> Callable[[Path], dict[str, int]]:
    """Counts, per set of weights in a saved file, the pruned weights that are not exactly zero.

    It looks at the published zeros, not at any mask, and insists that the other weights were
    trained.
    """

    def count(path: Path) -> dict[str, int]:
        checkpoint = load_checkpoint_file(path)
        lost = {}
        for name in ('state_dict', 'ema_state_dict'):
            if name not in checkpoint:
                continue
            state = {key.removeprefix('module.'): v for key, v in checkpoint[name].items()}
            lost[name] = 0
            for key, start in published.items():
                weight = state[f'backbone.{key}']
                pruned = start == 0
                assert pruned.any()
                assert not torch.equal(weight[~pruned], start[~pruned]), 'nothing was trained'
                lost[name] += int(torch.count_nonzero(weight[pruned]))
        return lost

    return count
