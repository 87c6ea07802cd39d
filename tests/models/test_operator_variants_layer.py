"""Layers and networks with the options of the ablations: folded, saved, refused, trained."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from model_helpers import SHORT_KERNELS, mini_net, prune_half, randomise_batch_norms, relative_error
from torch import nn

from mmsw.analysis.sparsity.layers import read_network
from mmsw.apis import convert_checkpoint
from mmsw.apis.backbone import fill_backbone
from mmsw.checkpoint import load_pretrained, network_record, save_checkpoint_file
from mmsw.errors import CheckpointError, StateDictError
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.models.layers.folded_operator import ARMS

ALL = [
    dict(padding=padding, branch_weights=weighted, position=position, identity=identity)
    for padding, weighted, position, identity in itertools.product(
        ('full', 'same'), (False, True), (False, True), ('centre', 'blur')
    )
][1:]
EACH = [
    dict(padding='same'),
    dict(branch_weights=True),
    dict(position=True),
    dict(identity='blur'),
    ALL[-1],
]
SIZES = [(9, 14), (2, 60), (1, 1)]
KERNELS = (31, 13, 13, 13)  # of nine groups and of four


def layer_with(big_kernel: int = 13, **options) -> ShiftWiseConv2d:
    """A layer as a trained one is."""
    layer = ShiftWiseConv2d(8, 8, big_kernel, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    prune_half(layer)
    randomise_batch_norms(layer)
    return layer.eval()


def net_with(version: str = 'v2', **options) -> ShiftWiseNet:
    net = mini_net(version=version, small_kernel=3, big_kernels=KERNELS, **options)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if '.variant.' in name:
                parameter.normal_()
    randomise_batch_norms(net)
    return net.eval()


@pytest.mark.parametrize('options', ALL, ids=str)
def test_a_folded_layer_is_the_same(options) -> None:
    layer = layer_with(**options)
    folded = copy.deepcopy(layer)
    folded.switch_to_deploy()
    for size in SIZES:
        x = torch.randn(2, 8, *size)
        with torch.no_grad():
            assert relative_error(folded(x), layer(x)) < 3e-6
    assert not list(folded.parameters())


@pytest.mark.parametrize('sizes', [(49, 3), (51, 5), (12, 5), (6, 3)], ids=str)
def test_blocks_off_the_centre_fold_as_well(sizes) -> None:
    layer = layer_with(sizes[0], small_kernel=sizes[1], padding='same', position=True)
    folded = copy.deepcopy(layer)
    folded.switch_to_deploy()
    for size in SIZES:
        x = torch.randn(2, 8, *size)
        with torch.no_grad():
            assert relative_error(folded(x), layer(x)) < 3e-6


def test_branch_weights_fold_into_the_cross_kernel() -> None:
    layer = layer_with(branch_weights=True)
    layer.switch_to_deploy()
    assert {*layer.state_dict()} == {'channel_order', *ARMS, 'deploy_options'}
    for options in EACH[2:4]:
        with pytest.raises(ValueError, match='more than a cross kernel and a bias'):
            layer_with(**options).equivalent_kernels()


@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('options', EACH, ids=str)
def test_networks_fold_save_and_load_in_both_forms(options, version) -> None:
    net = net_with(version, **options)
    x = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        expected = net(x)
    again = mini_net(version=version, small_kernel=3, big_kernels=KERNELS, **options).eval()
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(again(x), expected, strict=True))
    deployed = mini_net(
        version=version, small_kernel=3, big_kernels=KERNELS, deploy=True, **options
    ).eval()
    deployed.load_state_dict(net.switch_to_deploy().state_dict())
    with torch.no_grad():
        for found, own in zip(deployed(x), expected, strict=True):
            assert relative_error(found, own) < 3e-5


@pytest.mark.parametrize('options', EACH, ids=str)
def test_a_file_is_analysed_without_its_constants(options) -> None:
    net = net_with(**options)
    found = read_network(net.state_dict(), 'a run')
    norms = sum(p.numel() for name, p in net.named_parameters() if name.startswith('norm'))
    assert found.parameters == sum(p.numel() for p in net.parameters()) - norms
    assert any('not as published' in note for note in found.notes)


@pytest.mark.parametrize('options', EACH, ids=str)
def test_a_file_is_converted_with_its_options(tmp_path, options) -> None:
    net, path, converted = net_with(**options), tmp_path / 'run.pth', tmp_path / 'converted.pth'
    state = {f'backbone.{key}': value for key, value in net.state_dict().items()}
    torch.save({'state_dict': state}, path)
    convert_checkpoint(path, converted)
    record = torch.load(converted, weights_only=True)['meta']['mmsw']
    again = ShiftWiseNet(**record['backbone']).eval()
    load_pretrained(again, converted)
    x = torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(again(x), net(x), strict=True))
    state['backbone.stages.0.0.shift_wise.variant.options'][0] = 7
    torch.save({'state_dict': state}, path)
    with pytest.raises(CheckpointError, match='options of its operator cannot be read'):
        convert_checkpoint(path, converted)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_refusal_of_a_file_says_what_to_do(tmp_path, prefix) -> None:
    path = tmp_path / 'trained.pth'
    state = net_with(**ALL[-1]).state_dict()
    torch.save({'state_dict': {f'{prefix}{key}': value for key, value in state.items()}}, path)
    with pytest.raises(CheckpointError, match='build it with the options of the file'):
        fill_backbone(net_with(), path)


@pytest.mark.parametrize('options', EACH, ids=str)
@pytest.mark.parametrize('deploy', [False, True])
def test_other_options_are_refused(options, deploy) -> None:
    nets = [net_with(**options), net_with(), net_with(**EACH[EACH.index(options) - 1])]
    if deploy:
        nets = [net.switch_to_deploy() for net in nets]
    saved, plain, other = (net.state_dict() for net in nets)
    for net in nets[1:]:
        with pytest.raises(StateDictError, match='build it with the options of the file'):
            net.load_state_dict(saved, strict=False)
    for state in (plain, other)[0 if deploy else 1 :]:
        with pytest.raises(StateDictError, match='build it with the options of the file'):
            nets[0].load_state_dict(state, strict=False)


@pytest.mark.parametrize('options', EACH, ids=str)
def test_a_plain_checkpoint_starts_any_of_them(options, tmp_path) -> None:
    plain, net = net_with(), net_with(**options)
    save_checkpoint_file({'state_dict': plain.state_dict()}, tmp_path / 'plain.pth')
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    load_pretrained(net, tmp_path / 'plain.pth')
    own = net.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in plain.state_dict().items())
    added = [name for name in own if name not in plain.state_dict()]
    assert added
    assert all('.variant.' in name and torch.equal(own[name], before[name]) for name in added)
    save_checkpoint_file({'state_dict': net.state_dict()}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=r'unexpected stages\.0\.0\.shift_wise\.variant\.'):
        load_pretrained(plain, tmp_path / 'other.pth')


def test_files_record_what_is_not_as_published() -> None:
    assert not {*EACH[-1]} & {*network_record(net_with())['backbone']}
    for options in EACH:
        record = network_record(net_with(**options))['backbone']
        assert record.items() >= options.items()
        rebuilt = ShiftWiseNet(**record)
        assert rebuilt.settings == record


def test_branch_weights_start_at_one_and_learn() -> None:
    layer = ShiftWiseConv2d(8, 8, 13, branch_weights=True)
    plain = ShiftWiseConv2d(8, 8, 13)
    x = torch.randn(2, 8, 9, 9)
    assert relative_error(layer(x), plain(x)) < 1e-5
    layer(x).square().sum().backward()
    weights = dict(layer.variant.named_parameters())
    assert [*weights] == ['weight_h', 'weight_v', 'weight_i']
    assert all(weight.grad.abs().max() > 0 for weight in weights.values())
    with torch.no_grad():
        weights['weight_h'].zero_()
    layer.init_weights()
    assert all((weight == 1).all() for weight in weights.values())


@pytest.mark.parametrize('spared', [False, True])
def test_weight_decay_of_branch_weights(spared: bool) -> None:
    keys = {'.variant.weight_': dict(decay_mult=0.0)} if spared else {}
    optimizer = build_optim_wrapper(
        nn.ModuleDict({'backbone': net_with(branch_weights=True)}),
        dict(
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
            constructor='LayerDepthDecayOptimWrapperConstructor',
            paramwise_cfg=dict(decay_rate=0.9, flat_decay_mult=0.0, custom_keys=keys),
        ),
    ).optimizer
    decayed = [g['params'] for g in optimizer.param_groups if g.get('weight_decay')]
    shapes = {tuple(p.shape) for params in decayed for p in params if p.ndim == 2}
    assert all(p.ndim > 1 for params in decayed for p in params)
    assert any(shape[1] == 4 for shape in shapes) != spared  # of four repetitions


@pytest.mark.parametrize('options', EACH, ids=str)
def test_pruned_filters_stay_zero_and_learn_nothing(options) -> None:
    layer = layer_with(**options).train()
    layer(torch.randn(2, 8, 9, 9)).square().sum().backward()
    for path in layer.paths:
        assert (path.weight[~path.mask] == 0).all()
        assert (path.weight.grad[~path.mask] == 0).all()
        assert path.weight.grad[path.mask].abs().max() > 0


@pytest.mark.parametrize('options', EACH, ids=str)
@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_the_fused_block_agrees_with_its_layers(options, version, monkeypatch) -> None:
    from mmsw.models.backbones import fused_block

    monkeypatch.setattr(fused_block, 'LEAST_VALUES', 1)
    net = net_with(version, **options).train()
    by_layers = copy.deepcopy(net)
    for module in by_layers.modules():
        if hasattr(module, 'fused'):
            module.fused = False
    x = torch.randn(2, 3, 64, 64)
    for found, expected in zip(net(x), by_layers(x), strict=True):
        assert relative_error(found.detach(), expected.detach()) < 1e-4


@pytest.mark.parametrize('options', EACH, ids=str)
def test_half_precision(options) -> None:
    layer = layer_with(**options)
    x = torch.randn(2, 8, 7, 9)
    expected = layer(x)
    with torch.autocast('cpu', torch.bfloat16):
        found = layer(x)
        layer.switch_to_deploy()
        folded = layer(x)
    assert relative_error(found.float(), expected) < 3e-2
    assert relative_error(folded.float(), expected) < 3e-2


@pytest.mark.parametrize('options', EACH[::2], ids=str)
@pytest.mark.parametrize('deploy', [False, True])
def test_exported_programs_hold_for_other_sizes(options, deploy) -> None:
    layer = layer_with(**options)
    if deploy:
        layer.switch_to_deploy()
    sides = {
        2: torch.export.Dim('height', min=4, max=99),
        3: torch.export.Dim('width', min=4, max=99),
    }
    program = torch.export.export(
        layer, (torch.randn(2, 8, 12, 10),), dynamic_shapes=({0: None, 1: None, **sides},)
    ).module()
    for size in ((5, 6), (40, 33)):
        x = torch.randn(2, 8, *size)
        with torch.no_grad():
            assert relative_error(program(x), layer(x)) < 1e-5


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(padding='valid'), r"padding must be one of \('full', 'same'\), got 'valid'"),
        (dict(identity='mean'), r"identity must be one of \('centre', 'blur'\), got 'mean'"),
        (dict(branch_weights=1), 'branch_weights must be True or False, got 1'),
        (dict(position=None), 'position must be True or False, got None'),
        (
            dict(identity='blur', small_kernel=5),
            "identity='blur' needs small_kernel=3, got 5: choose small_kernel=3",
        ),
        (
            dict(identity='blur', kernel_size=9),
            'draws 4 small kernels of each channel, and big_kernel=9 has 3: choose a big_kernel '
            'of at least 10',
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        ShiftWiseConv2d(**{'in_channels': 8, 'out_channels': 8, 'kernel_size': 13, **arguments})


@pytest.mark.parametrize('factor', [0, -1.0, float('inf'), float('nan')])
def test_width_factors_that_leave_no_network_are_refused(factor) -> None:
    with pytest.raises(ValueError, match=f'width_factor must be a positive number, got {factor!r}'):
        mini_net(width_factor=factor)


def test_width_factor_rounds_channels_down() -> None:
    net = mini_net(width_factor=1.3, big_kernels=SHORT_KERNELS)
    assert net.dims == [20, 31, 41, 52]
    assert net.settings['arch']['dims'] == net.dims
    assert [one.shape[1] for one in net(torch.randn(1, 3, 64, 64))] == net.dims


def test_a_damaged_draw_is_refused() -> None:
    layer = ShiftWiseConv2d(8, 8, 13, identity='blur')
    state = layer.state_dict()
    for damage, message in (
        (lambda index: index.float(), 'must be int64'),
        (lambda index: index[:, :1], 'must be int64'),
        (lambda index: index.roll(1, 0), 'groups of channel c only'),
        (lambda index: index[:, :, :1].expand_as(index), 'name a group once'),
    ):
        damaged = {**state, 'variant.blur_index': damage(state['variant.blur_index'])}
        with pytest.raises(StateDictError, match=message):
            layer.load_state_dict(damaged)
