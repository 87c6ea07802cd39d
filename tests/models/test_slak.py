"""SLaK: the arguments, the shift-wise form, gradients, folding, freezing."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from model_helpers import MINI, SHORT_KERNELS, randomise_batch_norms, relative_error
from torch import Tensor, nn

from mmsw.checkpoint import CheckpointError
from mmsw.errors import StateDictError
from mmsw.models import SLaK, convert_large_kernels
from mmsw.models.backbones.slak_block import LargeKernelConv2d
from mmsw.models.layers import DepthwiseConv2d

FORMS = pytest.mark.parametrize('decomposed', [True, False], ids=['decomposed', 'square'])


def slak(**settings) -> SLaK:
    """A small network; layer scale 1, so that every block matters."""
    settings = dict(arch=MINI, width_factor=1.0, layer_scale_init_value=1.0) | settings
    return SLaK(**dict(big_kernels=SHORT_KERNELS) | settings)


def outputs_and_gradients(net: SLaK, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    image = image.clone().requires_grad_()
    maps = net(image)
    sum((feature * torch.cos(feature)).sum() for feature in maps).backward()
    return [feature.detach() for feature in maps], [image.grad, *(p.grad for p in net.parameters())]


@FORMS
@pytest.mark.parametrize('size', [(64, 64), (70, 33), (20, 7)])
@pytest.mark.parametrize('training', [True, False])
def test_shift_wise_is_the_same_network(decomposed, size, training) -> None:
    """Same names, same outputs, same gradients, from small convolutions and shifts."""
    plain = slak(decomposed=decomposed, big_kernels=(21, 13, 9, 5)).double()
    randomise_batch_norms(plain)
    shifted = slak(decomposed=decomposed, big_kernels=(21, 13, 9, 5), shift_wise=True).double()
    assert shifted.load_state_dict(plain.state_dict()).missing_keys == []
    assert shifted.settings == plain.settings
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    found, expected = (
        outputs_and_gradients(net.train(training), image) for net in (shifted, plain)
    )
    for mine, other in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        assert torch.allclose(mine, other, rtol=1e-7, atol=1e-7 * max(1, other.abs().max()))


@FORMS
def test_large_kernel_is_the_sum_of_its_convolutions_and_norms(decomposed) -> None:
    """Literally: Equation of the branches, SLaK, section 3."""
    layer = LargeKernelConv2d(4, 9, 3, decomposed, False, dict(type='BN'), 'auto').eval()
    randomise_batch_norms(layer)
    x = torch.randn(2, 4, 11, 6)
    expected = 0
    sides = [('vertical', (4, 1)), ('horizontal', (1, 4))] if decomposed else [('square', (4, 4))]
    for name, padding in [*sides, ('small', (1, 1))]:
        branch = getattr(layer, name)
        out, norm = F.conv2d(x, branch.conv.weight, padding=padding, groups=4), branch.norm
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        expected = expected + out * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    assert relative_error(layer(x), expected) < 1e-5
    layer.switch_to_deploy()
    layer.switch_to_deploy()
    assert relative_error(layer(x), expected) < 1e-5


@pytest.mark.parametrize('sides', [(51, 5), (5, 51), (33, 33)])
@pytest.mark.parametrize('size', [(40, 24), (12, 50)])
def test_gradient_of_plain_large_kernels(sides, size) -> None:
    conv = DepthwiseConv2d(16, sides)
    x, grad = torch.randn(2, 16, *size), torch.randn(2, 16, *size)
    exact = copy.deepcopy(conv).double()
    conv(x).backward(grad)
    exact(x.double()).backward(grad.double())
    assert relative_error(conv.weight.grad.double(), exact.weight.grad) < 1e-5
    with torch.no_grad():  # where it does not pad beforehand
        assert relative_error(conv(x).double(), exact(x.double())) < 1e-5


def test_converted_network_is_the_shift_wise_one() -> None:
    net, image = slak(big_kernels=(21, 13, 9, 5)).eval(), torch.randn(1, 3, 40, 64)
    with torch.no_grad():
        expected = net(image)
        report = convert_large_kernels(net)
        found = net(image)
    assert len(report.replaced) == 2 * 4  # two oblong kernels in every block of three stages
    assert report.left == {}
    for mine, before in zip(found, expected, strict=True):
        assert relative_error(mine, before) < 2e-5


@FORMS
@pytest.mark.parametrize('shift_wise', [False, True])
def test_folding(decomposed, shift_wise) -> None:
    settings = dict(decomposed=decomposed, shift_wise=shift_wise)
    net = slak(**settings)
    randomise_batch_norms(net)
    image = torch.randn(2, 3, 70, 45)
    with torch.no_grad():
        expected = net.eval()(image)
        found = net.switch_to_deploy()(image)
        built = slak(**settings, deploy=True).eval()
        built.load_state_dict(net.state_dict())
        again = built(image)
    for mine, other, before in zip(found, again, expected, strict=True):
        assert relative_error(mine, before) < 2e-5
        assert torch.equal(mine, other)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    with pytest.raises(StateDictError, match='has it folded'):
        slak(**settings).load_state_dict(net.state_dict())
    with pytest.raises(StateDictError, match='in training form'):
        built.load_state_dict(slak(**settings).state_dict())


def test_other_norms_cannot_be_folded() -> None:
    net = slak(norm_cfg=dict(type='GN', num_groups=2))
    with pytest.raises(TypeError, match=r'large_kernel\.vertical\.norm is a GroupNorm'):
        net.switch_to_deploy()
    assert not net.stages[0][0].deployed


def test_recomputed_blocks_give_the_same() -> None:
    net = slak(drop_path_rate=0.0)
    other = slak(with_cp=True)
    other.load_state_dict(net.state_dict())
    image = torch.randn(2, 3, 40, 40)
    found, expected = (outputs_and_gradients(each.train(), image) for each in (other, net))
    for mine, before in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        assert torch.allclose(mine, before, atol=1e-6)
    for mine, before in zip(other.buffers(), net.buffers(), strict=True):
        assert torch.allclose(mine, before)


def test_frozen_stages_and_kept_norms() -> None:
    net = slak(frozen_stages=1, norm_eval=True).train()
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert not any(n.startswith(('downsample_layers.0', 'stages.0')) for n in trained)
    assert any(name.startswith('stages.1') for name in trained)
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_depths_and_outputs() -> None:
    net = slak(out_indices=(0, 2))
    assert len(net.stages) == 3
    assert [tuple(f.shape[1:]) for f in net(torch.randn(2, 3, 64, 64))] == [
        (16, 16, 16),
        (32, 4, 4),
    ]
    assert net.get_layer_depth('backbone.stages.2.1.gamma', 'backbone.') == (3, 6)
    rebuilt = SLaK(**net.settings)
    assert rebuilt.load_state_dict(net.state_dict()).missing_keys == []


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(shift_wise='no'), "shift_wise must be True or False, got 'no'"),
        (dict(decomposed=0), 'decomposed must be True or False, got 0'),
        (dict(arch='huge'), r"arch must be one of \['base', 'small', 'tiny'\]"),
        (dict(big_kernels=(8, 7, 7, 5)), 'big_kernels must be odd'),
        (dict(small_kernel=4), 'small_kernel must be odd'),
        (dict(small_kernel=7), 'small_kernel must be at most the large kernel, got 7 and 5'),
        (dict(big_kernels=(7, 7)), 'one focus length per stage'),
        (dict(width_factor=0), 'width_factor must be a positive number, got 0'),
        (dict(width_factor=0.01), 'leaves fewer than 4 channels'),
        (dict(backend='fast'), 'fast'),
    ],
)
def test_what_cannot_be_honoured(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        slak(**settings)


def test_two_starts_are_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match='keep one of them'):
        slak(pretrained=tmp_path / 'a.pth', init_cfg=dict(type='Pretrained', checkpoint='b.pth'))
    with pytest.raises(CheckpointError, match='for another network than SLaK'):
        slak(pretrained='torchvision://resnet50')
