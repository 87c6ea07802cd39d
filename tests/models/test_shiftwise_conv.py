"""ShiftWiseConv2d as a layer: arguments, mmcv, norms, random state, layouts, precision."""

import copy
import random

import numpy as np
import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from model_helpers import prune_half, randomise_batch_norms, relative_error
from torch import nn

from mmsw.models import ShiftWiseConv2d
from mmsw.models.layers import shiftwise_conv
from mmsw.ops import BackendUnavailableError, available_backends, shift_wise_conv2d
from mmsw.ops.ghost_channels import ghost_channels

NORMS = ('norm_h', 'norm_v', 'norm_i')


def test_output_is_three_normed_branches_and_skip_then_ghost_channels() -> None:
    layer = ShiftWiseConv2d(10, 10, 9)
    randomise_batch_norms(layer)
    layer.eval()
    x = torch.randn(2, 10, 6, 7)
    ghosts = ghost_channels(10, 0.23, 'v2')
    active = [channel for channel in range(10) if channel not in ghosts]
    weight = layer.paths[0].weight + layer.paths[1].weight
    h, v, i = shift_wise_conv2d(x[:, active].contiguous(), weight, layer.pattern)
    processed = layer.norm_h(h) + layer.norm_v(v) + layer.norm_i(i) + x[:, active]
    assert relative_error(layer(x), torch.cat([processed, x[:, ghosts]], dim=1)) < 1e-6


@pytest.mark.parametrize(
    ('version', 'channels', 'num_active'),
    [
        ('v1', 16, 13),
        ('v2', 16, 12),
        ('v1', 80, 62),
        ('v2', 80, 60),
        ('v1', 96, 74),
        ('v2', 96, 72),
    ],
)
def test_ghost_ratio_in_channels(version, channels, num_active) -> None:
    ghosts = ghost_channels(channels, 0.23, version)
    drawn = np.random.RandomState(123).choice(channels, channels - num_active, replace=False)
    assert ghosts == sorted(drawn)
    layer = ShiftWiseConv2d(channels, channels, 5, version=version)
    assert layer.num_active == num_active
    assert sorted(layer.channel_order.tolist()) == list(range(channels))


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_without_ghosts(version) -> None:
    layer = ShiftWiseConv2d(6, 6, 5, ghost_ratio=0.0, version=version)
    assert layer.num_active == 6
    assert layer(torch.randn(2, 6, 4, 4)).shape == (2, 6, 4, 4)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(out_channels=9), 'out_channels must equal in_channels, got 8 -> 9'),
        (
            dict(kernel_size=(13, 11)),
            r'kernel_size must be the same in both directions, got \(13, 11\)',
        ),
        (dict(kernel_size=13.0), r'kernel_size must be whole numbers, got 13\.0'),
        (dict(num_paths=2.0), r'num_paths must be a whole number, got 2\.0'),
        (dict(kernel_size=0), 'big_kernel must be a positive integer, got 0'),
        (dict(small_kernel=4), 'small_kernel must be odd, got 4'),
        (dict(small_kernel=0), 'small_kernel must be a positive integer, got 0'),
        (dict(small_kernel=15), 'small_kernel must not exceed big_kernel, got 15 > 13'),
        (dict(ghost_ratio=-0.1), r'ghost_ratio must be in \[0, 1\), got -0.1'),
        (dict(ghost_ratio=1.0), r'ghost_ratio must be in \[0, 1\), got 1.0'),
        (dict(ghost_ratio=0.99), 'ghost_ratio 0.99 leaves none of 8 channels for the operator'),
        (dict(num_paths=0), 'num_paths must be at least 1, got 0'),
        (dict(num_reps=0), 'num_reps must be a positive integer, got 0'),
        (dict(version='v3'), "version must be one of .*'v1', 'v2'.*, got 'v3'"),
        (dict(stride=2), 'needs stride=1, got 2'),
        (dict(dilation=2), 'needs dilation=1, got 2'),
        (dict(padding=0), 'needs padding=None or 6, got 0'),
        (dict(padding=(6, 5)), r'padding must be the same in both directions, got \(6, 5\)'),
        (dict(groups=2), 'needs groups=1 or 8, got 2'),
        (dict(bias=True), 'needs bias=False, got True'),
    ],
)
def test_what_cannot_be_honoured_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftWiseConv2d(**{'in_channels': 8, 'out_channels': 8, 'kernel_size': 13, **arguments})


def test_whole_numbers_may_be_those_of_numpy() -> None:
    eight, thirteen = np.int64(8), np.array([13, 13])
    layer = ShiftWiseConv2d(eight, eight, thirteen, num_paths=np.int8(1), groups=np.int32(1))
    assert layer.kernel_size == (13, 13)
    assert type(layer.kernel_size[0]) is type(layer.in_channels) is int
    assert layer(torch.randn(1, 8, 5, 5)).shape == (1, 8, 5, 5)


@pytest.mark.parametrize(
    'arguments', [{}, dict(stride=(1, 1), padding=(6, 6), dilation=[1, 1], groups=8, bias=False)]
)
def test_mmcv_builds_it_as_a_convolution(arguments) -> None:
    cfg = dict(type='ShiftWiseConv2d', small_kernel=5, num_paths=1, version='v1')
    before = copy.deepcopy(cfg)
    layer = build_conv_layer(cfg, 8, 8, 13, **arguments)
    assert cfg == before
    assert type(layer) is ShiftWiseConv2d
    assert layer.pattern.small_kernel == 5
    assert len(layer.paths) == 1
    assert layer(torch.randn(2, 8, 9, 11)).shape == (2, 8, 9, 11)


def test_mmcv_conv_module() -> None:
    module = ConvModule(
        8,
        8,
        13,
        padding=6,
        bias=False,
        conv_cfg=dict(type='ShiftWiseConv2d'),
        norm_cfg=dict(type='BN'),
    )
    assert type(module.conv) is ShiftWiseConv2d
    assert module.kernel_size == (13, 13)
    module.init_weights()
    module(torch.randn(2, 8, 9, 11)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_norm_cfg_reaches_all_branches() -> None:
    cfg = dict(type='BN', momentum=0.03, eps=1e-3)
    layer = ShiftWiseConv2d(8, 8, 5, norm_cfg=cfg)
    assert cfg == dict(type='BN', momentum=0.03, eps=1e-3)
    for name in NORMS:
        norm = getattr(layer, name)
        assert (type(norm), norm.momentum, norm.eps) == (nn.BatchNorm2d, 0.03, 1e-3)
        assert norm.num_features == layer.num_active


@pytest.mark.parametrize(
    ('cfg', 'kind'),
    [
        (None, nn.BatchNorm2d),
        (dict(type='SyncBN'), nn.SyncBatchNorm),
        (dict(type='GN', num_groups=3), nn.GroupNorm),
    ],
)
def test_norm_types(cfg, kind) -> None:
    layer = ShiftWiseConv2d(8, 8, 5, norm_cfg=cfg)
    assert all(isinstance(getattr(layer, name), kind) for name in NORMS)
    assert layer.norm_h is not layer.norm_v
    assert layer.norm_v is not layer.norm_i


def test_frozen_norms_can_be_asked_for() -> None:
    layer = ShiftWiseConv2d(8, 8, 5, norm_cfg=dict(type='BN', requires_grad=False))
    assert {n for n, p in layer.named_parameters() if p.requires_grad} == {
        'paths.0.weight',
        'paths.1.weight',
    }


def test_building_draws_nothing_from_global_generators() -> None:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    layers = [ShiftWiseConv2d(16, 16, 13, version=version) for version in ('v1', 'v2', 'v2')]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
    assert random.getstate() == states[2]
    assert torch.equal(layers[1].paths[0].weight, layers[2].paths[0].weight)
    assert not torch.equal(layers[1].paths[0].weight, layers[1].paths[1].weight)


def test_init_weights_uses_the_global_generator_and_keeps_zeros() -> None:
    layer = ShiftWiseConv2d(16, 16, 13)
    prune_half(layer)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        layer.init_weights()
        drawn.append([path.weight.detach().clone() for path in layer.paths])
    for path, first, again, other in zip(layer.paths, *drawn, strict=True):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert (first[~path.mask] == 0).all()
        assert 0.015 < first[path.mask].std() < 0.025


def test_paths_are_summed_and_masked() -> None:
    layer = ShiftWiseConv2d(16, 16, 13, num_paths=3)
    prune_half(layer)
    expected = sum(path.weight * path.mask for path in layer.paths)
    assert torch.allclose(layer.merged_weight(), expected, rtol=0, atol=1e-7)
    assert (layer.merged_weight().flatten(1) == 0).all(1).any(), 'no filter is pruned in all paths'


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype) -> None:
    layer = ShiftWiseConv2d(12, 12, 13)
    randomise_batch_norms(layer)
    layer.eval()
    x = torch.randn(2, 12, 9, 11)
    expected = layer(x)
    expected.sum().backward()
    exact = [path.weight.grad.clone() for path in layer.paths]
    layer.zero_grad()
    with torch.autocast('cpu', dtype):
        out = layer(x)
    assert relative_error(out.float(), expected) < 2e-2
    out.sum().backward()
    for path, grad in zip(layer.paths, exact, strict=True):
        assert path.weight.grad.dtype == torch.float32
        assert relative_error(path.weight.grad, grad) < 3e-2


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_whole_layer_in_another_dtype(dtype) -> None:
    layer = ShiftWiseConv2d(12, 12, 13).eval()
    x = torch.randn(2, 12, 9, 11)
    expected = layer(x)
    out = layer.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    assert relative_error(out.float(), expected) < 2e-2
    assert layer.pattern.shift_hv.dtype == torch.int32


def test_channels_last() -> None:
    layer = ShiftWiseConv2d(12, 12, 13)
    randomise_batch_norms(layer)
    x = torch.randn(2, 12, 9, 11)
    plain = layer(x)
    layer.to(memory_format=torch.channels_last)
    x_last = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = layer(x_last)
    assert relative_error(out, plain) < 1e-5
    out.square().sum().backward()
    x_plain = x.clone().requires_grad_()
    layer(x_plain).square().sum().backward()
    assert relative_error(x_last.grad, x_plain.grad) < 1e-5


@pytest.mark.parametrize('shape', [(1, 6, 1, 1), (2, 6, 1, 9), (2, 6, 3, 30), (0, 6, 4, 4)])
def test_small_and_empty_maps(shape) -> None:
    layer = ShiftWiseConv2d(6, 6, 13).eval()
    assert layer(torch.randn(shape)).shape == shape


def test_gradcheck_of_input_and_weights() -> None:
    layer = ShiftWiseConv2d(3, 3, 7, num_reps=2, ghost_ratio=0.34, version='v1').double().eval()
    assert layer.num_active == 2
    randomise_batch_norms(layer)
    prune_half(layer)
    names = ['paths.0.weight', 'paths.1.weight']

    def outputs(x, *weights):
        # Masks are off here: a pruned weight has a true gradient that the layer hides on purpose.
        given = dict(zip(names, weights, strict=True))
        masks = {f'paths.{p}.mask': torch.ones_like(layer.paths[p].mask) for p in range(2)}
        return torch.func.functional_call(layer, {**given, **masks}, (x,))

    x = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    weights = [torch.randn_like(path.weight).requires_grad_() for path in layer.paths]
    assert torch.autograd.gradcheck(outputs, (x, *weights))


def test_backend_reaches_the_operator(monkeypatch) -> None:
    seen = []

    def record(x, weight, pattern, backend=None, mask=None):
        seen.append(backend)
        return shift_wise_conv2d(x, weight, pattern, 'torch')

    monkeypatch.setattr(shiftwise_conv, 'shift_wise_conv2d', record)
    for backend in ('torch', 'auto', None):
        ShiftWiseConv2d(6, 6, 5, backend=backend).eval()(torch.zeros(1, 6, 4, 4))
    assert seen == ['torch', 'auto', None]


def test_unavailable_backend_raises() -> None:
    missing = [name for name, state in available_backends().items() if state is not True]
    if not missing:
        pytest.skip('no-backend: all run on this machine')
    with pytest.raises(BackendUnavailableError, match=missing[0]):
        ShiftWiseConv2d(6, 6, 5, backend=missing[0])
    with pytest.raises(ValueError, match="unknown backend 'typo'"):
        ShiftWiseConv2d(6, 6, 5, backend='typo')


def test_state_dict_round_trip_restores_pattern_and_order() -> None:
    layer = ShiftWiseConv2d(12, 12, 13)
    prune_half(layer)
    randomise_batch_norms(layer)
    with torch.no_grad():  # another pattern and order than the usual draw
        layer.pattern.shift_hv.copy_(layer.pattern.shift_hv.roll(layer.pattern.num_groups, 0))
        layer.channel_order.copy_(layer.channel_order.flip(0))
    other = ShiftWiseConv2d(12, 12, 13)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 12, 7, 8)
    assert torch.equal(other.eval()(x), layer.eval()(x))


def test_state_dict_without_tables_is_complete() -> None:
    """Published files hold neither pattern nor channel order nor masks."""
    layer = ShiftWiseConv2d(12, 12, 13)
    own_only = ('channel_order', 'pattern.', 'mask')
    state = {k: v for k, v in layer.state_dict().items() if not any(o in k for o in own_only)}
    assert len(state) == 2 + 3 * 5
    ShiftWiseConv2d(12, 12, 13).load_state_dict(state)


@pytest.mark.parametrize(
    'order',
    [
        torch.zeros(6, dtype=torch.int64),
        torch.tensor(5),
        torch.arange(6).view(1, 6),
        torch.arange(7),
        torch.arange(6).float(),
        torch.arange(6).to(torch.complex64),
    ],
    ids=['repeated', 'scalar', 'two-dimensional', 'longer', 'float', 'complex'],
)
@pytest.mark.parametrize('assign', [False, True])
def test_state_dict_with_a_wrong_channel_order_is_refused(order, assign) -> None:
    state = ShiftWiseConv2d(6, 6, 5).state_dict()
    state['channel_order'] = order
    with pytest.raises(RuntimeError, match='channel_order must be a permutation of 6 channels'):
        ShiftWiseConv2d(6, 6, 5).load_state_dict(state, assign=assign)


@pytest.mark.parametrize(
    'backend', [name for name, ok in available_backends().items() if ok is True]
)
@pytest.mark.parametrize('form', ['strided', 'int64', 'int32 identities'])
def test_tables_of_any_layout_are_made_fit_for_every_backend(form, backend) -> None:
    """assign=True takes tensors as they are, and compiled code reads their memory."""
    plain = ShiftWiseConv2d(12, 12, 13, backend='torch').eval()
    state = plain.state_dict()
    for key in ('pattern.shift_hv', 'pattern.identity_index', 'channel_order'):
        if form == 'strided':
            state[key] = torch.stack([state[key], state[key] * 0], -1)[..., 0]
            assert not state[key].is_contiguous()
        elif form == 'int64':
            state[key] = state[key].to(torch.int64)
        else:
            state[key] = state[key].to(torch.int32)
    layer = ShiftWiseConv2d(12, 12, 13, backend=backend).eval()
    layer.load_state_dict(state, assign=True)
    assert layer.pattern.shift_hv.dtype == torch.int32
    assert layer.pattern.identity_index.dtype == layer.channel_order.dtype == torch.int64
    x = torch.randn(2, 12, 7, 8)
    assert relative_error(layer(x), plain(x)) < 1e-5
