"""load_release_checkpoint: every layout of the published files gives one state dict."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmsw.checkpoint import (
    CheckpointError,
    load_pretrained,
    load_release_checkpoint,
    to_state_dict,
    training_arguments,
)

OWN_ONLY = ('.pattern.', '.channel_order')


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_names_are_those_of_the_network(version, data_dir, build_net) -> None:
    state = load_release_checkpoint(data_dir / f'backbone_{version}_mini_checkpoint.pth')
    own = build_net(version=version).state_dict()
    head = {'head.weight', 'head.bias', 'head.norm.weight', 'head.norm.bias'}
    assert {key for key in state if key.startswith('head')} == head
    missing = {key for key in own if key not in state}
    assert set(state) - set(own) == head
    assert all(key.startswith('norm') or any(part in key for part in OWN_ONLY) for key in missing)
    assert all(state[key].shape == own[key].shape for key in state if key in own)


def test_values_of_renamed_tensors(published_model, published_path) -> None:
    state = load_release_checkpoint(published_path)
    for own, theirs in {
        'stages.2.1.shift_wise.paths.1.weight': 'stages.2.1.large_kernel.LoRAs.1.weight',
        'stages.0.0.shift_wise.norm_h.bias': 'stages.0.0.large_kernel.bn_lora1.bias',
        'stages.0.0.shift_wise.norm_v.running_var': 'stages.0.0.large_kernel.bn_lora2.running_var',
        'stages.3.0.shift_wise.norm_i.weight': 'stages.3.0.large_kernel.bn_small.weight',
        'stages.1.0.pointwise_conv1.bias': 'stages.1.0.pwconv1.1.bias',
        'stages.1.0.pointwise_conv2.weight': 'stages.1.0.pwconv2.0.weight',
        'stages.1.0.norm2.running_mean': 'stages.1.0.pwconv2.2.running_mean',
        'head.norm.weight': 'norm.weight',
        'head.bias': 'head.bias',
    }.items():
        assert torch.equal(state[own], published_model[theirs]), own
    gamma = published_model['stages.0.0.act.1.gamma']
    assert torch.equal(state['stages.0.0.grn.gamma'], gamma.flatten())


def test_masks_are_the_zeros(published_path) -> None:
    state = load_release_checkpoint(published_path)
    masks = [key for key in state if key.endswith('.mask')]
    assert len(masks) == 2 * 5
    for key in masks:
        weight = state[key.removesuffix('mask') + 'weight']
        assert state[key].dtype == torch.bool
        assert torch.equal(state[key], weight != 0)
        assert not state[key].all()


@pytest.mark.parametrize(
    'layout',
    [
        'bare',
        'state_dict',
        'model.state_dict',
        'module.',
        'backbone.',
        'module.backbone.',
        '_orig_mod.',
        'module._orig_mod.',
    ],
)
def test_layouts(layout, published_model, published_path, tmp_path) -> None:
    model = published_model
    if layout.endswith('.'):
        content = {'model': {layout + key: tensor for key, tensor in model.items()}}
    elif layout == 'model.state_dict':
        content = {'model': {'state_dict': model}}
    else:
        content = model if layout == 'bare' else {layout: model, 'epoch': 3}
    torch.save(content, tmp_path / 'file.pth')
    expected = load_release_checkpoint(published_path)
    assert_same(load_release_checkpoint(tmp_path / 'file.pth'), expected)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_backbone_inside_a_segmentor(prefix, published_model, published_path, tmp_path) -> None:
    model = {f'{prefix}backbone.{key}': tensor for key, tensor in published_model.items()}
    model[f'{prefix}decode_head.conv_seg.weight'] = torch.zeros(2)
    model[f'{prefix}auxiliary_head.convs.0.conv.weight'] = torch.zeros(2)
    torch.save({'meta': {}, 'state_dict': model, 'message_hub': {}}, tmp_path / 'file.pth')
    expected = load_release_checkpoint(published_path)
    assert_same(load_release_checkpoint(str(tmp_path / 'file.pth')), expected)


def test_merged_paths(published_model, published_path, tmp_path) -> None:
    merged = {key: t for key, t in published_model.items() if '.LoRAs.' not in key}
    for key, weight in published_model.items():
        if key.endswith('.LoRAs.0.weight'):
            name = key.removesuffix('LoRAs.0.weight')
            merged[f'{name}LoRA.weight'] = weight + published_model[f'{name}LoRAs.1.weight']
    torch.save({'model': merged}, tmp_path / 'merged.pth')
    state = load_release_checkpoint(tmp_path / 'merged.pth')
    apart = load_release_checkpoint(published_path)
    assert set(state) == {key for key in apart if '.paths.1.' not in key}
    name = 'stages.2.0.shift_wise.paths'
    expected = apart[f'{name}.0.weight'] + apart[f'{name}.1.weight']
    assert torch.equal(state[f'{name}.0.weight'], expected)
    assert torch.equal(state[f'{name}.0.mask'], expected != 0)


def test_own_files_keep_their_masks(build_net, published_path, tmp_path) -> None:
    net = build_net(str(published_path))
    path = net.stages[0][0].shift_wise.paths[0]
    with torch.no_grad():
        path.weight[path.mask.flatten(1).any(1).nonzero()[0]] = 0  # kept, happens to be zero
    torch.save({'state_dict': net.state_dict(), 'meta': {}}, tmp_path / 'own.pth')
    assert_same(load_release_checkpoint(tmp_path / 'own.pth'), dict(net.state_dict()))


def test_the_given_contents_are_not_modified(published) -> None:
    before = {key: tensor.clone() for key, tensor in published['model'].items()}
    to_state_dict(published)
    assert set(published) == {'model', 'optimizer', 'epoch', 'scaler', 'args'}
    assert_same(published['model'], before)


def test_training_arguments(published) -> None:
    assert training_arguments(published)['kernel_size'] == [51, 49, 47, 13, 3]
    assert training_arguments(published['model']) == {}
    assert training_arguments([1, 2]) == {}
    assert training_arguments({'args': None}) == {}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'holds a list, expected a dict of tensors, bare or under model or state_dict'),
        (torch.zeros(3), 'holds a Tensor, expected a dict of tensors'),
        ({}, r'holds no tensors; its keys are \[\]'),
        ({'epoch': 3, 'model': {'a': 1}}, r"holds no tensors; its keys are \['a'\]"),
        ({'weight': torch.zeros(3)}, "holds another network .1 tensors, the first is 'weight'"),
        (
            {'model': {'stages.0.0.dwconv.weight': torch.zeros(3)}},
            r'a shift-wise network in training form was expected, with keys such as stages\.0',
        ),
    ],
)
def test_other_contents_are_refused(content, message, tmp_path) -> None:
    torch.save(content, tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=message):
        load_release_checkpoint(tmp_path / 'file.pth')


def test_slak_is_named(data_dir, build_net) -> None:
    with pytest.raises(CheckpointError, match='holds a SLaK network') as caught:
        load_pretrained(build_net(), data_dir / 'backbone_slak_mini_checkpoint.pth')
    assert str(Path('backbone_slak_mini_checkpoint.pth')) in str(caught.value)


def test_tensors_without_values_are_refused(build_net) -> None:
    state = build_net().state_dict()
    name = 'stages.0.0.shift_wise.pattern.kernel_sizes'
    state[name] = state[name].to('meta')
    with pytest.raises(CheckpointError, match=f'holds no values of {name}: they were saved from'):
        to_state_dict(state)
