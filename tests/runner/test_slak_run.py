"""A run of SLaK through the runner: zeros of single weights, averaged weights, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import ARCH, tiny_config

from mmsw.apis import build_runner
from mmsw.checkpoint import load_checkpoint_file, save_checkpoint_file
from mmsw.models import SLaK

SETTINGS = dict(arch=ARCH, big_kernels=(7, 7, 5, 5), width_factor=1.0, layer_scale_init_value=1.0)
HOOKS = [dict(type='SparsityReportHook', require_sparse=True), dict(type='EMAHook', momentum=0.3)]


@pytest.fixture(scope='module')
def sparse_file(tmp_path_factory) -> Path:
    """A file of a SLaK backbone of which half of the weights is zero; nothing tells so."""
    state = SLaK(**SETTINGS).state_dict()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in state.items():
        if tensor.ndim > 1:
            tensor *= torch.rand(tensor.shape, generator=generator) < 0.5
            assert (tensor == 0).any(), key
    path = tmp_path_factory.mktemp('start') / 'slak.pth'
    save_checkpoint_file(state, path)
    return path


def config(folder: Path, iterations: int, start: Path | None, **settings):
    cfg = tiny_config(folder, iterations, custom_hooks=HOOKS)
    backbone = dict(SETTINGS, type='SLaK', out_indices=(3,), **settings)
    if start is not None:
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=str(start))
    cfg.model.backbone = backbone
    return cfg


def patterns(state: dict, prefix: str = '') -> dict[str, torch.Tensor]:
    """Where the weights of the backbone are zero."""
    names = {key for key in state if key.endswith('.weight') and 'head' not in key}
    weights = {key.removeprefix(prefix): state[key] for key in names if state[key].ndim > 1}
    return {key: weight == 0 for key, weight in weights.items()}


@pytest.mark.parametrize('shift_wise', [False, True])
def test_zeros_stay_through_saving_averaging_and_resuming(
    sparse_file: Path, tmp_path: Path, shift_wise: bool
) -> None:
    expected = patterns(load_checkpoint_file(sparse_file))
    build_runner(config(tmp_path, 2, sparse_file, shift_wise=shift_wise)).train()
    first = tmp_path / 'iter_2.pth'
    # The other form goes on: the file is the same for both.
    cfg = config(tmp_path, 4, None, shift_wise=not shift_wise)
    build_runner(cfg, resume=first).train()
    for file in (first, tmp_path / 'iter_4.pth'):
        checkpoint = load_checkpoint_file(file)
        assert checkpoint['meta']['mmsw']['backbone']['type'] == 'SLaK'
        assert len(checkpoint['meta']['mmsw']['scope']) == len(expected)
        found = patterns(checkpoint['state_dict'], 'backbone.')
        averaged = patterns(checkpoint['ema_state_dict'], 'module.backbone.')
        for key, zero in expected.items():
            assert torch.equal(found[key], zero), key
            assert torch.equal(averaged[key], zero), key
    weight = 'backbone.stages.0.0.pointwise_conv1.weight'
    before, after = (load_checkpoint_file(tmp_path / f'iter_{i}.pth') for i in (2, 4))
    assert not torch.equal(before['state_dict'][weight], after['state_dict'][weight])
