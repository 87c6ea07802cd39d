"""ShiftWiseNet against the authors' networks: features, logits, names, shapes, parameter counts."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from model_helpers import MINI, relative_error
from torch import Tensor

from mmsw.checkpoint import load_release_checkpoint, to_state_dict
from mmsw.models import ShiftWiseNet

VERSIONS = ('v1', 'v2')
ROUNDING = 2e-5
# What this project saves and the published files do not hold.
OWN_ONLY = ('.pattern.', '.channel_order', '.mask')


@pytest.fixture(params=VERSIONS)
def mini(request, data_dir) -> tuple[ShiftWiseNet, dict[str, Tensor], dict[str, Tensor]]:
    """Network with the published weights, the classifier's weights, golden input and outputs."""
    path = data_dir / f'backbone_{request.param}_mini_checkpoint.pth'
    net = ShiftWiseNet(MINI, request.param, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    net.init_weights()
    io = np.load(data_dir / f'backbone_{request.param}_mini_io.npz')
    return net.eval(), load_release_checkpoint(path), {k: torch.from_numpy(io[k]) for k in io}


def test_features(mini) -> None:
    net, _, golden = mini
    with torch.no_grad():
        features = net(golden['image'])
    for index, feature in enumerate(features):
        assert relative_error(feature, golden[f'feature{index}']) < ROUNDING


def test_logits(mini) -> None:
    """The classifier of a published file is kept under ``head.`` and works on the last stage."""
    net, state, golden = mini
    net.norm3 = torch.nn.Identity()  # the classifier has a norm of its own, after pooling
    head = {key.removeprefix('head.'): t for key, t in state.items() if key.startswith('head.')}
    with torch.no_grad():
        pooled = net(golden['image'])[3].mean((2, 3))
        normed = F.layer_norm(
            pooled, pooled.shape[1:], head['norm.weight'], head['norm.bias'], 1e-6
        )
        logits = F.linear(normed, head['weight'], head['bias'])
    assert relative_error(logits, golden['logits']) < ROUNDING


def test_features_stay_after_deploy(mini) -> None:
    net, _, golden = mini
    net.switch_to_deploy()
    with torch.no_grad():
        features = net(golden['image'])
    for index, feature in enumerate(features):
        assert relative_error(feature, golden[f'feature{index}']) < ROUNDING


def test_density_of_the_published_file(mini) -> None:
    """About 30% of the small filters are zero there; whole filters, not single weights."""
    net, _, _ = mini
    paths = [m for n, m in net.named_modules() if n.endswith(('paths.0', 'paths.1'))]
    assert len(paths) == 2 * 5
    for path in paths:
        kept = path.mask.flatten(1)
        assert (kept.all(1) == kept.any(1)).all()
        assert 0.5 < kept.float().mean() < 0.9
        assert torch.equal(path.mask, path.weight != 0)


@pytest.fixture(scope='module', params=['tiny', 'small', 'base'])
def arch(request) -> str:
    return request.param


@pytest.fixture(scope='module', params=VERSIONS)
def full_size(request, arch) -> tuple[str, str, dict[str, tuple[int, ...]], int]:
    with torch.device('meta'):
        net = ShiftWiseNet(arch, request.param)
    shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
    return request.param, arch, shapes, sum(p.numel() for p in net.parameters())


def test_names_and_shapes_of_the_full_networks(full_size, data_dir) -> None:
    version, arch, shapes, _ = full_size
    table = json.loads((data_dir / f'state_dict_shapes_{version}_{arch}.json').read_text())
    with torch.device('meta'):
        release = to_state_dict({key: torch.empty(shape) for key, shape in table.items()})
    release = {
        key: tuple(tensor.shape)
        for key, tensor in release.items()
        if not key.startswith('head.') and not key.endswith('.mask')
    }
    own = {
        key: shape
        for key, shape in shapes.items()
        if not key.startswith('norm') and not any(part in key for part in OWN_ONLY)
    }
    assert own == release


def test_parameter_counts(full_size, data_dir) -> None:
    version, arch, _, count = full_size
    published = json.loads((data_dir / 'param_counts.json').read_text())[f'{version}_{arch}']
    dims = ShiftWiseNet.arch_settings[version, arch]['dims']
    output_norms = 2 * sum(dims)
    assert count == published['params_without_head'] + output_norms


@pytest.mark.parametrize('version', VERSIONS)
def test_large_builds(version) -> None:
    with torch.device('meta'):
        net = ShiftWiseNet('large', version)
    assert [len(stage) for stage in net.stages] == [3, 3, 27, 3]
    assert net.dims == [192, 384, 768, 1536]
    assert {p.device.type for p in net.parameters()} == {'meta'}
