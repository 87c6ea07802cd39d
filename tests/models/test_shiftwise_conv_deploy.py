"""switch_to_deploy of a layer: the same function in one cross kernel and a bias."""

import copy

import pytest
import torch
from model_helpers import prune_half, randomise_batch_norms, relative_error

from mmsw.models import ShiftWiseConv2d


@pytest.fixture
def trained() -> ShiftWiseConv2d:
    layer = ShiftWiseConv2d(12, 12, 13)
    layer.init_weights()
    with torch.no_grad():
        for path in layer.paths:
            path.weight.mul_(20)
    prune_half(layer)
    randomise_batch_norms(layer)
    return layer.eval()


@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=51, small_kernel=5, version='v1'),
        dict(kernel_size=49, small_kernel=3),
        dict(kernel_size=13, small_kernel=3, num_paths=1, num_reps=1),
        dict(kernel_size=3, small_kernel=3, ghost_ratio=0.0),
        dict(kernel_size=6, small_kernel=1),
        dict(kernel_size=13, norm_cfg=dict(type='SyncBN', eps=1e-3)),
        dict(kernel_size=13, norm_cfg=dict(type='BN', momentum=None)),
    ],
)
@pytest.mark.parametrize('size', [(9, 14), (3, 60), (1, 1)])
def test_outputs_stay_the_same(arguments, size) -> None:
    layer = ShiftWiseConv2d(12, 12, **arguments).eval()
    with torch.no_grad():
        for path in layer.paths:
            path.weight.normal_()
    randomise_batch_norms(layer)
    prune_half(layer)
    x = torch.randn(2, 12, *size)
    with torch.no_grad():
        expected = layer(x)
        layer.switch_to_deploy()
        assert relative_error(layer(x), expected) < 3e-6


def test_deployed_layer_has_no_branches_left(trained) -> None:
    trained.switch_to_deploy()
    assert not list(trained.parameters())
    names = {'channel_order', 'deploy_wide', 'deploy_tall', 'deploy_bias'}
    assert set(trained.state_dict()) == names


def test_calling_twice_is_fine(trained) -> None:
    trained.switch_to_deploy()
    first = {key: tensor.clone() for key, tensor in trained.state_dict().items()}
    trained.switch_to_deploy()
    assert all(torch.equal(tensor, first[key]) for key, tensor in trained.state_dict().items())


def test_reload_into_another_deployed_layer(trained) -> None:
    other = ShiftWiseConv2d(12, 12, 13).eval()
    other.switch_to_deploy()
    trained.switch_to_deploy()
    other.load_state_dict(trained.state_dict(), strict=True)
    x = torch.randn(2, 12, 7, 9)
    assert torch.equal(other(x), trained(x))


def test_deployed_and_training_states_do_not_mix(trained) -> None:
    deployed = copy.deepcopy(trained)
    deployed.switch_to_deploy()
    with pytest.raises(RuntimeError, match='is in training form, and the state dict has it folded'):
        trained.load_state_dict(deployed.state_dict())
    with pytest.raises(RuntimeError, match='is folded, and the state dict has it in training form'):
        deployed.load_state_dict(trained.state_dict())


@pytest.mark.parametrize(
    'norm_cfg', [dict(type='GN', num_groups=3), dict(type='BN', track_running_stats=False)]
)
def test_norms_that_cannot_be_folded_are_refused(norm_cfg) -> None:
    layer = ShiftWiseConv2d(8, 8, 5, norm_cfg=norm_cfg).eval()
    x = torch.randn(2, 8, 4, 4)
    expected = layer(x)
    with pytest.raises(TypeError, match='only batch norms with running statistics can be folded'):
        layer.switch_to_deploy()
    assert not layer.deployed
    assert torch.equal(layer(x), expected)


def test_batch_norm_without_affine_terms_folds() -> None:
    layer = ShiftWiseConv2d(8, 8, 5, norm_cfg=dict(type='BN', affine=False)).eval()
    for norm in (layer.norm_h, layer.norm_v, layer.norm_i):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(2, 8, 6, 5)
    expected = layer(x)
    layer.switch_to_deploy()
    assert relative_error(layer(x), expected) < 3e-6


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_deployed_under_autocast(trained, dtype) -> None:
    x = torch.randn(2, 12, 7, 9)
    expected = trained(x)
    trained.switch_to_deploy()
    with torch.autocast('cpu', dtype):
        assert relative_error(trained(x).float(), expected) < 3e-2


def test_deployed_in_double_precision_is_exact_to_double_rounding(trained) -> None:
    trained.double()
    x = torch.randn(2, 12, 7, 9, dtype=torch.float64)
    expected = trained(x)
    trained.switch_to_deploy()
    assert relative_error(trained(x), expected) < 1e-13
