"""ShiftWiseNet: arguments, sizes, norms, what it returns and what it refuses."""

import copy
import re

import numpy as np
import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS, DefaultScope
from model_helpers import (
    MINI,
    SHORT_KERNELS,
    mini_net,
    prune_half,
    randomise_batch_norms,
    relative_error,
)
from torch import nn

from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.models.layers import LayerNorm2d, shiftwise_conv
from mmsw.ops import shift_wise_conv2d
from mmsw.sparsity import report

VERSIONS = ('v1', 'v2')


def rounded(length: int, version: str) -> list[int]:
    """Map lengths of the four stages: v1 rounds down, v2 rounds up."""
    if version == 'v1':
        lengths = [length // 4]
        for _ in range(3):
            lengths.append(lengths[-1] // 2)
        return lengths
    lengths = [(((length + 1) // 2) + 1) // 2]
    for _ in range(3):
        lengths.append((lengths[-1] + 1) // 2)
    return lengths


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('size', [(32, 32), (33, 33), (64, 96), (224, 224), (97, 161), (32, 200)])
def test_shapes(version, size) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS).eval()
    with torch.no_grad():
        features = net(torch.randn(1, 3, *size))
    assert isinstance(features, tuple)
    heights, widths = (rounded(length, version) for length in size)
    expected = [(1, c, h, w) for c, h, w in zip(MINI['dims'], heights, widths, strict=True)]
    assert [tuple(f.shape) for f in features] == expected
    if all(length % 32 == 0 for length in size):
        assert [size[0] // h for h in heights] == [4, 8, 16, 32]
    assert all(f.is_contiguous() and torch.isfinite(f).all() for f in features)


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('size', [(31, 64), (64, 31), (16, 16), (1, 70), (33, 1), (1, 1)])
def test_small_images(version, size) -> None:
    """No map is empty; sides below 32 pixels round up."""
    net = mini_net(version=version, big_kernels=SHORT_KERNELS).eval()
    with torch.no_grad():
        features = net(torch.randn(1, 3, *size))
    sides = [rounded(n, 'v2' if n < 32 else version) for n in size]
    assert [tuple(f.shape[2:]) for f in features] == list(zip(*sides, strict=True))
    assert all(f.is_contiguous() and torch.isfinite(f).all() for f in features)
    sum(f.sum() for f in net(torch.randn(2, 3, *size, requires_grad=True))).backward()


def test_padding_of_small_images_is_the_same_as_by_hand() -> None:
    net = mini_net(version='v1', big_kernels=SHORT_KERNELS).eval()
    x = torch.randn(2, 3, 20, 40)
    with torch.no_grad():
        found, padded = net(x), net(torch.nn.functional.pad(x, (0, 0, 0, 12)))
    assert [f.shape[2] for f in found] == [5, 3, 2, 1]
    assert all(torch.equal(f, p[:, :, : f.shape[2]]) for f, p in zip(found, padded, strict=True))


@pytest.mark.parametrize('version', VERSIONS)
def test_images_without_pixels_are_refused(version) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS).eval()
    with pytest.raises(ValueError, match='images with pixels, got 0 x 40'):
        net(torch.zeros(1, 3, 0, 40))


@pytest.mark.parametrize('version', VERSIONS)
def test_output_norms_normalise_the_channels(version) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS).eval()
    for feature in net(torch.randn(1, 3, 64, 64)):
        assert feature.mean(1).abs().max() < 1e-4
        assert (feature.var(1, correction=0) - 1).abs().max() < 1e-2


@pytest.mark.parametrize('out_indices', [(3,), [0, 2], (2, 0), range(1, 3), 1, (0, 1, 2, 3)])
def test_out_indices(out_indices) -> None:
    """Whatever the order in the argument, features come in the order of the stages."""
    net = mini_net(big_kernels=SHORT_KERNELS, out_indices=out_indices).eval()
    whole = mini_net(big_kernels=SHORT_KERNELS).eval()
    whole.load_state_dict(net.state_dict(), strict=False)
    wanted = sorted([out_indices] if isinstance(out_indices, int) else out_indices)
    x = torch.randn(1, 3, 64, 64)
    found, everything = net(x), whole(x)
    assert len(found) == len(wanted)
    assert all(torch.equal(f, everything[i]) for f, i in zip(found, wanted, strict=True))
    assert {n for n, _ in net.named_children() if n.startswith('norm')} == {
        f'norm{i}' for i in wanted
    }


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('out_indices', [(0,), (0, 1, 2), (1,), (2, 0), (1, 2, 3)])
def test_stages_behind_the_last_output_are_not_built(version, out_indices) -> None:
    """A stage that nobody sees would get no gradient, which breaks DDP and misleads SNIP."""
    arguments = dict(version=version, big_kernels=SHORT_KERNELS, drop_path_rate=0.4)
    net = mini_net(**arguments, out_indices=out_indices)
    whole = mini_net(**arguments)
    built = 1 + max(out_indices)
    assert len(net.stages) == len(net.downsample_layers) == built
    assert set(report(net).stages) == set(range(built))
    own = net.state_dict()
    assert own.keys() == {
        key
        for key in whole.state_dict()
        if int(re.search(r'\d+', key)[0]) < built
        and (not key.startswith('norm') or int(key[4]) in out_indices)
    }
    for name, parameter in net.named_parameters():
        assert net.get_layer_depth(name) == whole.get_layer_depth(name)
        assert parameter.shape == whole.get_parameter(name).shape
    for stage, theirs in zip(net.stages, whole.stages, strict=False):
        for block, other in zip(stage, theirs, strict=True):
            rate, expected = (getattr(b.drop_path, 'drop_prob', 0.0) for b in (block, other))
            assert rate == expected
    if version == 'v2':  # new GRN layers are an identity whose scale has no effect on other layers
        for block in (block for stage in net.stages for block in stage):
            nn.init.normal_(block.grn.gamma)
            block.drop_path = nn.Identity()
    sum(f.square().sum() for f in net(torch.randn(2, 3, 64, 64))).backward()
    without = [n for n, p in net.named_parameters() if p.grad is None]
    assert not without
    net.eval().switch_to_deploy()
    assert len(net(torch.randn(1, 3, 64, 64))) == len(out_indices)


@pytest.mark.parametrize('frozen_stages', [2, 3, 4])
def test_freezing_more_stages_than_there_are_freezes_all(frozen_stages) -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, out_indices=(0, 1), frozen_stages=frozen_stages)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert trained == {f'norm{i}.{kind}' for i in (0, 1) for kind in ('weight', 'bias')}
    net.train()
    assert not any(module.training for module in [*net.stages, *net.downsample_layers])


@pytest.mark.parametrize('in_channels', [1, 4])
@pytest.mark.parametrize('version', VERSIONS)
def test_in_channels(version, in_channels) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS, in_channels=in_channels).eval()
    assert len(net(torch.randn(1, in_channels, 32, 32))) == 4


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(version='v3'), "version must be one of .*got 'v3'"),
        (dict(arch='huge'), r"one of \['base', 'large', 'small', 'tiny'\] or dict.*got 'huge'"),
        (dict(arch=None), 'dict with exactly the keys depths and dims, got None'),
        (dict(arch=[1, 1, 2, 1]), r'keys depths and dims, got \[1, 1, 2, 1\]'),
        (dict(arch=dict(depths=[1, 1, 1, 1])), 'exactly the keys depths and dims, got'),
        (dict(arch=dict(**MINI, kernels=3)), 'exactly the keys depths and dims, got .*kernels'),
        (dict(arch=dict(MINI, depths=[1, 1, 1])), r'four whole depths.*got \[1, 1, 1\]'),
        (dict(arch=dict(MINI, depths=[1, 1, 0, 1])), r'depths of at least 1.*got \[1, 1, 0, 1\]'),
        (
            dict(arch=dict(MINI, depths=[1, 1.5, 1, 1])),
            'depths must be whole numbers, got',
        ),
        (dict(arch=dict(MINI, dims=[16, 24, 32])), r'four whole dims.*got \[16, 24, 32\]'),
        (dict(arch=dict(MINI, dims=[16, 24, 32, 2])), r'dims of at least 4.*got \[16, 24, 32, 2\]'),
        (dict(big_kernels=(51, 49, 47)), r'one focus length per stage \(4\), got \(51, 49, 47\)'),
        (dict(big_kernels=51), r'one focus length per stage \(4\), got \(51,\)'),
        (dict(big_kernels=(51, 49, 47, 13.0)), r'big_kernels must be whole numbers, got \(51'),
        (dict(big_kernels='9755'), "big_kernels must be whole numbers, got '9755'"),
        (dict(big_kernels=(51, 49, 47, 2)), 'small_kernel must not exceed big_kernel, got 3 > 2'),
        (dict(small_kernel=4), 'small_kernel must be odd, got 4'),
        (dict(small_kernel=0), 'small_kernel must be a positive integer, got 0'),
        (dict(ghost_ratio=1.0), r'ghost_ratio must be in \[0, 1\), got 1.0'),
        (dict(num_paths=0), 'num_paths must be at least 1, got 0'),
        (dict(num_paths=True), 'num_paths must be a whole number, got True'),
        (dict(num_paths=np.bool_(True)), 'num_paths must be a whole number, got'),
        (dict(num_reps=4.0), r'num_reps must be a positive integer, got 4\.0'),
        (dict(in_channels=0), 'in_channels must be a positive integer, got 0'),
        (dict(num_reps=0), 'num_reps must be a positive integer, got 0'),
        (dict(drop_path_rate=1.0), r'drop_path_rate must be in \[0, 1\), got 1.0'),
        (dict(drop_path_rate=-0.1), r'drop_path_rate must be in \[0, 1\), got -0.1'),
        (dict(out_indices=(0, 4)), r'out_indices must name stages 0 to 3, got \(0, 4\)'),
        (dict(out_indices=(-1,)), r'out_indices must name stages 0 to 3, got \(-1,\)'),
        (dict(out_indices=()), r'out_indices must name stages 0 to 3, got \(\)'),
        (dict(out_indices=True), 'out_indices must be whole numbers, got True'),
        (dict(out_indices=(1.0,)), r'out_indices must be whole numbers, got \(1\.0,\)'),
        (dict(frozen_stages=1.0), r'frozen_stages must be a whole number, got 1\.0'),
        (dict(frozen_stages=5), 'frozen_stages must be between -1 and 4, got 5'),
        (dict(frozen_stages=-2), 'frozen_stages must be between -1 and 4, got -2'),
    ],
)
def test_what_cannot_be_honoured_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftWiseNet(**{'arch': MINI, **arguments})


def test_whole_numbers_may_be_those_of_numpy() -> None:
    """A config that computes its numbers, or reads them from a file, has such."""
    whole = np.int64
    given = dict(
        arch=dict(depths=np.array(MINI['depths']), dims=tuple(map(whole, MINI['dims']))),
        big_kernels=np.array(SHORT_KERNELS),
        small_kernel=whole(3),
        num_paths=np.int32(1),
        num_reps=np.uint8(2),
        in_channels=whole(4),
        out_indices=np.array([1, 3]),
        frozen_stages=whole(1),
    )
    net = ShiftWiseNet(**given)
    plain = ShiftWiseNet(
        arch=MINI,
        big_kernels=SHORT_KERNELS,
        num_paths=1,
        num_reps=2,
        in_channels=4,
        out_indices=(1, 3),
        frozen_stages=1,
    )
    assert repr(net.settings) == repr(plain.settings)
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    assert type(net.frozen_stages) is type(net.num_reps) is int
    assert ShiftWiseNet(arch=MINI, big_kernels=SHORT_KERNELS, out_indices=whole(2)).out_indices == (
        2,
    )


def test_arguments_are_not_modified() -> None:
    arguments = dict(
        arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]),
        big_kernels=list(SHORT_KERNELS),
        out_indices=[3, 1],
        norm_cfg=dict(type='BN', eps=1e-3),
        init_cfg=dict(type='TruncNormal', layer='Conv2d', std=0.1),
    )
    before = copy.deepcopy(arguments)
    net = ShiftWiseNet(**arguments)
    net.init_weights()
    assert arguments == before
    net.depths[0] = 7
    assert arguments == before


@pytest.mark.parametrize('version', VERSIONS)
def test_default_small_kernel(version) -> None:
    expected = {'v1': 5, 'v2': 3}[version]
    net = mini_net(version=version)
    sides = {m.pattern.small_kernel for m in net.modules() if isinstance(m, ShiftWiseConv2d)}
    assert sides == {expected}
    assert mini_net(version=version, small_kernel=1).small_kernel == 1


def test_layer_arguments_reach_every_layer(monkeypatch) -> None:
    seen = []

    def record(x, weight, pattern, backend=None, mask=None):
        seen.append(backend)
        return shift_wise_conv2d(x, weight, pattern, 'torch')

    monkeypatch.setattr(shiftwise_conv, 'shift_wise_conv2d', record)
    net = mini_net(
        big_kernels=(11, 9, 7, 5), ghost_ratio=0.5, num_paths=3, num_reps=2, backend='torch'
    ).eval()
    net(torch.zeros(1, 3, 32, 32))
    layers = [m for m in net.modules() if isinstance(m, ShiftWiseConv2d)]
    assert [layer.pattern.big_kernel for layer in layers] == [11, 9, 7, 7, 5]
    assert [layer.num_active for layer in layers] == [8, 12, 16, 16, 20]
    assert {len(layer.paths) for layer in layers} == {3}
    assert {layer.pattern.num_reps for layer in layers} == {2}
    assert seen == ['torch'] * 5


@pytest.mark.parametrize(('version', 'norms_per_block'), [('v1', 3), ('v2', 5)])
@pytest.mark.parametrize(
    'cfg', [dict(type='SyncBN', momentum=0.03), dict(type='BN', momentum=0.03)]
)
def test_norm_cfg_reaches_every_norm(version, norms_per_block, cfg) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS, norm_cfg=cfg)
    kind = {'SyncBN': nn.SyncBatchNorm, 'BN': nn.BatchNorm2d}[cfg['type']]
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 5 * norms_per_block
    assert all(isinstance(norm, kind) and norm.momentum == 0.03 for norm in norms)


def test_group_norm_trains() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, norm_cfg=dict(type='GN', num_groups=2))
    assert not [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    sum(f.sum() for f in net(torch.randn(1, 3, 32, 32))).backward()


def test_drop_path_rates_rise_linearly() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, drop_path_rate=0.4)
    blocks = [block for stage in net.stages for block in stage]
    rates = [b.drop_path.drop_prob if isinstance(b.drop_path, DropPath) else 0.0 for b in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_skips_whole_samples() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, drop_path_rate=0.9)
    block = net.stages[3][0]
    x = torch.randn(64, 40, 2, 2)
    unchanged = (block(x) == x).flatten(1).all(1).float().mean()
    assert 0.75 < unchanged < 1


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize(('value', 'has_scale'), [(1e-6, True), (1.0, True), (0.0, False)])
def test_layer_scale(version, value, has_scale) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS, layer_scale_init_value=value)
    layer_scale = re.compile(r'stages\.\d\.\d\.gamma')
    scales = [p for name, p in net.named_parameters() if layer_scale.fullmatch(name)]
    assert len(scales) == (5 if has_scale else 0)
    assert all((scale == value).all() for scale in scales)
    assert len(net.eval()(torch.randn(1, 3, 32, 32))) == 4


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine'])
def test_plain_name_builds_under_the_default_scope(scope) -> None:
    registry = pytest.importorskip(f'{scope}.registry', reason=f'{scope}: absent').MODELS
    cfg = dict(type='ShiftWiseNet', arch=MINI, big_kernels=SHORT_KERNELS)
    with DefaultScope.overwrite_default_scope(scope):
        for models in (registry, MODELS):
            net = models.build(dict(cfg))
            assert type(net) is ShiftWiseNet
            layer = dict(type='ShiftWiseConv2d', in_channels=8, out_channels=8, kernel_size=5)
            assert type(models.build(layer)) is ShiftWiseConv2d


@pytest.mark.parametrize('version', VERSIONS)
def test_state_dict_round_trip(version, tmp_path) -> None:
    net = mini_net(version=version, big_kernels=SHORT_KERNELS)
    randomise_batch_norms(net)
    prune_half(net)
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    other = mini_net(version=version, big_kernels=SHORT_KERNELS)
    other.load_state_dict(torch.load(tmp_path / 'net.pth', weights_only=True), strict=True)
    x = torch.randn(1, 3, 64, 64)
    expected = net.eval()(x)
    assert all(torch.equal(a, b) for a, b in zip(other.eval()(x), expected, strict=True))


@pytest.mark.parametrize('version', VERSIONS)
def test_switch_to_deploy(version) -> None:
    net = mini_net(version=version)
    randomise_batch_norms(net)
    prune_half(net)
    assert net.eval() is net
    assert net.train() is net
    net.eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(x)
        assert net.switch_to_deploy() is net
        found = net(x)
        assert net.switch_to_deploy() is net
        assert all(torch.equal(a, b) for a, b in zip(net(x), found, strict=True))
    for out, target in zip(found, expected, strict=True):
        assert relative_error(out, target) < 1e-5
    assert not any('paths' in key or 'pattern' in key for key in net.state_dict())
    other = mini_net(version=version).switch_to_deploy().eval()
    other.load_state_dict(net.state_dict(), strict=True)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(other(x), found, strict=True))


def test_deploy_refuses_group_norm_and_changes_nothing() -> None:
    net = mini_net(big_kernels=SHORT_KERNELS, norm_cfg=dict(type='GN', num_groups=2)).eval()
    before = set(net.state_dict())
    with pytest.raises(TypeError, match='only batch norms'):
        net.switch_to_deploy()
    assert set(net.state_dict()) == before


def test_layer_norm_of_maps() -> None:
    norm = LayerNorm2d(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 4)
    mean, var = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
    expected = (x - mean) / (var + 1e-6).sqrt() * norm.weight.view(1, -1, 1, 1) + norm.bias.view(
        1, -1, 1, 1
    )
    assert relative_error(norm(x), expected) < 1e-5


def test_init_weights_redraws_and_follows_the_seed() -> None:
    nets = []
    for seed in (1, 1, 2):
        net = mini_net(big_kernels=SHORT_KERNELS)
        torch.manual_seed(seed)
        net.init_weights()
        nets.append(net.state_dict())
    weights = [key for key in nets[0] if key.endswith(('pointwise_conv1.weight', 'paths.1.weight'))]
    assert len(weights) == 10
    for key in weights:
        assert torch.equal(nets[0][key], nets[1][key])
        assert not torch.equal(nets[0][key], nets[2][key])
        assert 0.01 < nets[0][key].std() < 0.03


def test_init_cfg_of_mmengine_is_applied() -> None:
    net = mini_net(
        big_kernels=SHORT_KERNELS, init_cfg=dict(type='Constant', layer='Linear', val=0.25)
    )
    net.init_weights()
    assert (net.stages[0][0].pointwise_conv1.weight == 0.25).all()
    assert net.downsample_layers[1][0].weight.std() > 0
    net.stages[0][0].pointwise_conv1.weight.data.zero_()
    net.init_weights()  # a second call keeps what is there
    assert (net.stages[0][0].pointwise_conv1.weight == 0).all()
