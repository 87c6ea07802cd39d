"""The backbone inside a larger file: found if it is the only one, else named by prefix=."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmsw.checkpoint import CheckpointError, load_pretrained, to_state_dict
from mmsw.models import ShiftWiseNet

SEVERAL = ('teacher.backbone.', 'student.backbone.')


def under(prefix: str, tensors: dict) -> dict:
    return {prefix + key: tensor for key, tensor in tensors.items()}


@pytest.fixture
def network(published) -> dict:
    """The published file as a state dict of this project."""
    return to_state_dict(published)


@pytest.fixture(params=['published', 'own'])
def tensors(request, published_model, build_net, published_path) -> dict:
    if request.param == 'published':
        return published_model
    return build_net(str(published_path)).state_dict()


def assert_loaded(net: ShiftWiseNet, expected: dict) -> None:
    own = net.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in expected.items() if key in own)


@pytest.mark.parametrize('prefix', ['teacher.', 'student.', 'img_backbone.', 'encoder.', 'a.b.c.'])
def test_the_only_network_is_found(prefix, tensors, network, build_net, tmp_path) -> None:
    content = {
        **under(prefix, tensors),
        'neck.weight': torch.zeros(2),
        'backbone.fc': torch.ones(1),
    }
    torch.save({'state_dict': content}, tmp_path / 'file.pth')
    assert_loaded(build_net(str(tmp_path / 'file.pth')), network)


def test_the_usual_place_comes_first(published_model, network) -> None:
    other = {key: torch.zeros_like(tensor) for key, tensor in published_model.items()}
    content = {**under('teacher.backbone.', other), **under('module.backbone.', published_model)}
    assert all(torch.equal(t, network[k]) for k, t in to_state_dict(content).items())


@pytest.mark.parametrize('wrapper', ['', 'module.'])
@pytest.mark.parametrize('prefix', ['teacher.backbone.', 'teacher.backbone', 'teacher', 'teacher.'])
def test_prefix_of_init_cfg(prefix, wrapper, tensors, network, build_net, tmp_path) -> None:
    other = {key: torch.zeros_like(tensor) for key, tensor in tensors.items()}
    content = {**under('student.backbone.', other), **under('teacher.backbone.', tensors)}
    torch.save({'state_dict': under(wrapper, content)}, tmp_path / 'file.pth')
    path = str(tmp_path / 'file.pth')
    cfg = dict(type='Pretrained', checkpoint=path, prefix=prefix, map_location='cpu')
    net = build_net(init_cfg=cfg)
    net.init_weights()
    assert_loaded(net, network)


def test_several_networks_are_listed(published_model, build_net, tmp_path) -> None:
    content = {k: t for prefix in SEVERAL for k, t in under(prefix, published_model).items()}
    torch.save(content, tmp_path / 'file.pth')
    with pytest.raises(
        CheckpointError,
        match=r"file\.pth holds several shift-wise networks, under 'teacher.backbone.', "
        r"'student.backbone.'\. Say which one with prefix=, .*prefix='teacher.backbone.'\)",
    ):
        load_pretrained(build_net(), tmp_path / 'file.pth')
    with pytest.raises(
        CheckpointError,
        match=r"no shift-wise network under prefix='ema\.'; there is one under 'teacher.back",
    ):
        load_pretrained(build_net(), tmp_path / 'file.pth', prefix='ema')


def test_unknown_keys_of_init_cfg_are_refused(published_path, build_net) -> None:
    for cfg in (
        dict(type='Pretrained', checkpoint=str(published_path), prefixes='a.'),
        dict(type='Pretrained', prefix='a.'),
    ):
        with pytest.raises(ValueError, match=r"needs checkpoint and may have .'prefix', 'input_we"):
            build_net(init_cfg=cfg).init_weights()


def test_names_that_only_look_alike(build_net: Callable) -> None:
    """Small kernels outside of numbered stages are no backbone."""
    state = {'net.block.shift_wise.paths.0.weight': torch.zeros(4, 1, 3, 3)}
    with pytest.raises(CheckpointError, match='holds another network'):
        to_state_dict(state)
