"""ShiftWiseLargeKernel is the depthwise convolution that it stands for, in all respects."""

import copy
import pickle

import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from torch import nn

from mmsw.errors import UnknownBackendError
from mmsw.models import ShiftWiseLargeKernel
from mmsw.sparsity import attach_masks
from mmsw.sparsity.layer_masks import set_masks

pytestmark = pytest.mark.filterwarnings('ignore:Using padding')


def pair(kernel: tuple[int, int], bias: bool = True) -> tuple[nn.Conv2d, ShiftWiseLargeKernel]:
    plain = nn.Conv2d(4, 4, kernel, padding='same', groups=4, bias=bias)
    layer = ShiftWiseLargeKernel(4, kernel, bias=bias)
    layer.load_state_dict(plain.state_dict())
    return plain, layer


@pytest.mark.parametrize('kernel', [(51, 5), (4, 9), (13, 13)], ids=str)
@pytest.mark.parametrize('bias', [True, False])
def test_equals_the_convolution(kernel: tuple, bias: bool) -> None:
    plain, layer = pair(kernel, bias)
    assert list(layer.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 4, 14, 11)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-5)
    assert layer.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize('kernel', [(51, 5), 13], ids=str)
def test_starts_as_a_convolution_does(kernel: object) -> None:
    torch.manual_seed(3)
    layer = ShiftWiseLargeKernel(4, kernel)
    torch.manual_seed(3)
    plain = nn.Conv2d(4, 4, kernel, groups=4)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)
    names = ('in_channels', 'out_channels', 'kernel_size', 'stride', 'dilation', 'groups')
    assert all(getattr(layer, name) == getattr(plain, name) for name in names)
    assert layer.padding == tuple(side // 2 for side in layer.kernel_size)


def test_maps_of_other_layouts_and_no_batch() -> None:
    plain, layer = pair((9, 5))
    x = torch.randn(2, 4, 14, 11)
    expected = plain(x)
    for maps in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT):
        torch.testing.assert_close(layer(maps), expected)
    torch.testing.assert_close(layer(x[0]), expected[0])
    assert layer(x[:0]).shape == (0, 4, 14, 11)


def test_copies_pickles_and_autocast() -> None:
    plain, layer = pair((9, 5))
    x = torch.randn(2, 4, 14, 11)
    expected = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), expected)
        assert (twin.small_kernel, twin.backend) == (5, 'auto')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert layer(x).dtype == plain(x).dtype == torch.bfloat16


def test_compiles_as_a_whole() -> None:
    _, layer = pair((13, 5))
    x = torch.randn(2, 4, 14, 11)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    out = compiled(x)
    torch.testing.assert_close(out, layer(x))
    out.square().sum().backward()
    found, layer.weight.grad = layer.weight.grad, None
    layer(x).square().sum().backward()
    torch.testing.assert_close(found, layer.weight.grad, rtol=1e-4, atol=1e-4)


def test_masks_keep_their_zeros() -> None:
    _, layer = pair((13, 5))
    net = nn.Sequential(layer)
    attach_masks(net, r'0\.weight')
    set_masks(net, {'0': torch.rand_like(layer.weight) < 0.5})
    mask = layer.mask.clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(2, 4, 9, 9)).square().sum().backward()
        assert not layer.weight.grad[~mask].any()
        optimizer.step()
    assert torch.equal(layer.weight != 0, mask)
    assert list(net.state_dict()) == ['0.weight', '0.bias', '0.mask']


def test_is_built_by_mmcv() -> None:
    cfg = dict(type='ShiftWiseLargeKernel', small_kernel=3)
    layer = build_conv_layer(cfg, 4, 4, 13, padding=6, groups=4, bias=False)
    assert isinstance(layer, ShiftWiseLargeKernel)
    assert (layer.kernel_size, layer.small_kernel, layer.bias) == ((13, 13), 3, None)
    module = ConvModule(4, 4, (13, 5), padding=(6, 2), groups=4, conv_cfg=cfg)
    assert module(torch.randn(1, 4, 8, 8)).shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(stride=2, padding=6, groups=4), 'stride 2'),
        (dict(padding=6), 'not depthwise'),
        (dict(padding=3, groups=4), 'padding 3 is not "same"'),
    ],
)
def test_mmcv_hears_what_it_cannot_be(arguments: dict, message: str) -> None:
    if 'groups' not in arguments:
        arguments = dict(arguments, groups=1)
    with pytest.raises(ValueError, match=message):
        build_conv_layer(dict(type='ShiftWiseLargeKernel'), 4, 4, 13, **arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((0, 13), 'channels must be a positive integer, got 0'),
        ((4, 0), 'kernel_size must be one or two positive integers, got 0'),
        ((4, (3, 3, 3)), 'kernel_size must be one or two positive integers'),
        ((4, 13, 4), 'small_kernel must be odd, got 4'),
    ],
)
def test_bad_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftWiseLargeKernel(*arguments)


def test_an_unknown_backend_is_named_at_once() -> None:
    with pytest.raises(UnknownBackendError, match='numpy'):
        ShiftWiseLargeKernel(4, 13, backend='numpy')


def test_a_map_of_too_many_dimensions_is_named_as_given() -> None:
    with pytest.raises(ValueError, match=r'got \[1, 2, 4, 5, 6\]'):
        ShiftWiseLargeKernel(4, 9)(torch.zeros(1, 2, 4, 5, 6))
