"""ShiftWiseNet(deploy=True): the folded network without its training form."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from model_helpers import SHORT_KERNELS, mini_net, prune_half, randomise_batch_norms

from mmsw.checkpoint import CheckpointError, load_pretrained
from mmsw.models import ShiftWiseNet


@pytest.fixture(params=['v1', 'v2'])
def trained(request: pytest.FixtureRequest) -> ShiftWiseNet:
    net = mini_net(version=request.param, big_kernels=SHORT_KERNELS).eval()
    randomise_batch_norms(net)
    prune_half(net)
    return net


def folded(net: ShiftWiseNet) -> ShiftWiseNet:
    return copy.deepcopy(net).switch_to_deploy()


def test_it_is_the_network_after_switch_to_deploy(trained: ShiftWiseNet) -> None:
    built = ShiftWiseNet(**trained.settings, deploy=True).eval()
    expected = folded(trained)
    shapes = {key: (t.shape, t.dtype) for key, t in built.state_dict().items()}
    assert shapes == {key: (t.shape, t.dtype) for key, t in expected.state_dict().items()}
    built.load_state_dict(expected.state_dict(), strict=True)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for found, wanted in zip(built(image), expected(image), strict=True):
            assert torch.equal(found, wanted)
    assert str(built) == str(expected)


def test_it_works_before_it_is_filled_and_can_be_initialised() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, deploy=True).eval()
    net.init_weights()
    assert all(torch.isfinite(out).all() for out in net(torch.randn(1, 3, 64, 64)))


def test_it_can_be_built_without_memory() -> None:
    with torch.device('meta'):
        net = mini_net(big_kernels=SHORT_KERNELS, deploy=True)
    own = mini_net(big_kernels=SHORT_KERNELS, deploy=True).state_dict()
    assert {k: t.shape for k, t in net.state_dict().items()} == {k: t.shape for k, t in own.items()}


@pytest.mark.parametrize('strict', [True, False])
def test_the_forms_do_not_mix(trained: ShiftWiseNet, strict: bool) -> None:
    other = folded(trained)
    message = 'is in training form, and the state dict has it folded: load it into a network that'
    with pytest.raises(RuntimeError, match=message):
        trained.load_state_dict(other.state_dict(), strict=strict)
    message = 'is folded, and the state dict has it in training form: load it into a network that'
    with pytest.raises(RuntimeError, match=message):
        other.load_state_dict(trained.state_dict(), strict=strict)


@pytest.mark.parametrize('layer', ['', '.paths.0', '.pattern'])
def test_layers_of_a_newer_version_are_refused(trained: ShiftWiseNet, layer: str) -> None:
    state = trained.state_dict()
    name = f'stages.1.0.shift_wise{layer}'
    version = state._metadata[name]['version'] = state._metadata[name]['version'] + 1
    message = (
        rf'"{name}" has the version {version} of \w+, this mmsw reads up to {version - 1}: ins'
    )
    with pytest.raises(RuntimeError, match=message):
        trained.load_state_dict(state, strict=False)


def test_a_file_in_training_form_names_the_cure(trained: ShiftWiseNet, tmp_path) -> None:
    torch.save(trained.state_dict(), tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=r'load first \(deploy=False\), then call switch_to'):
        load_pretrained(ShiftWiseNet(**trained.settings, deploy=True), tmp_path / 'file.pth')


def test_averages_take_the_tables_over(trained: ShiftWiseNet) -> None:
    """Buffers that are no numbers to be averaged."""
    average = ExponentialMovingAverage(trained, momentum=0.5, update_buffers=True)
    for _ in range(3):
        average.update_parameters(trained)
    state = average.module.state_dict()
    for key, tensor in trained.state_dict().items():
        if '.pattern.' in key:
            assert torch.equal(state[key], tensor), key


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_exported_programs_hold_the_tables(version: str) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS, out_indices=(0,)).eval()
    randomise_batch_norms(net)
    prune_half(net)
    image = torch.randn(1, 3, 32, 32)
    program = torch.export.export(net, (image,))
    with torch.no_grad():
        for found, wanted in zip(program.module()(image), net(image), strict=True):
            torch.testing.assert_close(found, wanted)
