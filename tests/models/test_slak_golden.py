"""SLaK against its authors' networks: features, logits, names, shapes, parameter counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_helpers import MINI, relative_error
from torch import Tensor

from mmsw.checkpoint import load_release_checkpoint, to_state_dict
from mmsw.models import SLaK

ROUNDING = 2e-5
FILE = 'backbone_slak_mini_checkpoint.pth'


@pytest.fixture(params=[False, True], ids=['plain', 'shift-wise'])
def mini(request, data_dir) -> tuple[SLaK, dict[str, Tensor]]:
    """Network with the published weights; golden input and outputs."""
    start = dict(type='Pretrained', checkpoint=str(data_dir / FILE))
    net = SLaK(MINI, width_factor=1.0, shift_wise=request.param, init_cfg=start)
    net.init_weights()
    io = np.load(data_dir / 'backbone_slak_mini_io.npz')
    return net.eval(), {key: torch.from_numpy(io[key]) for key in io}


@torch.no_grad()
def check_features(net: SLaK, golden: dict[str, Tensor]) -> None:
    for index, feature in enumerate(net(golden['image'])):
        assert relative_error(feature, golden[f'feature{index}']) < ROUNDING


def test_features_and_folded_features(mini) -> None:
    net, golden = mini
    check_features(net, golden)
    net.switch_to_deploy()
    check_features(net, golden)


def test_logits(mini, data_dir) -> None:
    net, golden = mini
    net.norm3 = torch.nn.Identity()  # the classifier has a norm of its own, after pooling
    head = {
        key.removeprefix('head.'): tensor
        for key, tensor in load_release_checkpoint(data_dir / FILE).items()
        if key.startswith('head.')
    }
    with torch.no_grad():
        pooled = net(golden['image'])[3].mean((2, 3))
        shape = pooled.shape[1:]
        normed = F.layer_norm(pooled, shape, head['norm.weight'], head['norm.bias'], 1e-6)
        logits = F.linear(normed, head['weight'], head['bias'])
    assert relative_error(logits, golden['logits']) < ROUNDING


@pytest.mark.parametrize('shift_wise', [False, True])
@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_names_shapes_and_parameters_of_the_full_networks(arch, shift_wise, data_dir) -> None:
    with torch.device('meta'):
        net = SLaK(arch, shift_wise=shift_wise, output_norm=False)
        table = json.loads((data_dir / f'state_dict_shapes_slak_{arch}.json').read_text())
        release = to_state_dict({key: torch.empty(shape) for key, shape in table.items()})
    shapes = {key: t.shape for key, t in release.items() if not key.startswith('head.')}
    assert {key: tensor.shape for key, tensor in net.state_dict().items()} == shapes
    counts = json.loads((data_dir / 'param_counts.json').read_text())
    published = counts[f'slak_{arch}_width1.3']['params_without_head']
    assert sum(p.numel() for p in net.parameters()) == published


def test_base_is_wider() -> None:
    with torch.device('meta'):
        net = SLaK('base')
    assert net.dims == [166, 332, 665, 1331]
    assert [len(stage) for stage in net.stages] == [3, 3, 27, 3]
