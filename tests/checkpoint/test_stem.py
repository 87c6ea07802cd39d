"""input_weights: the first convolution from a file for another number of image channels."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmsw.apis.config import set_pretrained
from mmsw.checkpoint import CheckpointError, load_pretrained
from mmsw.sparsity import masked_layers

STEM = 'downsample_layers.0.0'


@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('input_weights', ['mean', 'repeat'])
@pytest.mark.parametrize('in_channels', [1, 2, 4, 6])
def test_weights(version, input_weights, in_channels, data_dir, build_net) -> None:
    path = str(data_dir / f'backbone_{version}_mini_checkpoint.pth')
    rgb = build_net(path, version=version).get_submodule(STEM).weight
    cfg = dict(type='Pretrained', checkpoint=path, input_weights=input_weights)
    net = build_net(init_cfg=cfg, version=version, in_channels=in_channels)
    net.init_weights()
    found = net.get_submodule(STEM).weight
    for channel in range(in_channels):
        source = rgb.mean(1) if input_weights == 'mean' else rgb[:, channel % 3]
        torch.testing.assert_close(found[:, channel], source * 3 / in_channels)


@pytest.mark.parametrize(
    ('input_weights', 'in_channels'), [('mean', 1), ('mean', 5), ('repeat', 6)]
)
def test_equal_channels_give_what_they_gave(
    input_weights, in_channels, published_path, build_net
) -> None:
    net, rgb = build_net(in_channels=in_channels), build_net(str(published_path))
    load_pretrained(net, published_path, input_weights=input_weights)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        found = net(grey.expand(-1, in_channels, -1, -1))
        expected = rgb(grey.expand(-1, 3, -1, -1))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_from_any_number_of_channels_to_rgb(build_net, tmp_path, caplog) -> None:
    source = build_net(in_channels=5)
    torch.save(source.state_dict(), tmp_path / 'file.pth')
    logger = MMLogger.get_instance('stem')
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    net = build_net()
    load_pretrained(net, tmp_path / 'file.pth', input_weights='repeat')
    expected = source.get_submodule(STEM).weight[:, :3] * 5 / 3
    torch.testing.assert_close(net.get_submodule(STEM).weight, expected)
    lines = [r.message for r in caplog.records if 'input_weights' in r.message]
    assert len(lines) == 1
    assert "is filled for 3 (input_weights='repeat', scaled by 5/3)" in lines[0]


def test_the_same_number_of_channels_needs_nothing(published_path, build_net) -> None:
    net = build_net()
    load_pretrained(net, published_path, input_weights='mean')
    expected = build_net(str(published_path)).get_submodule(STEM).weight
    assert torch.equal(net.get_submodule(STEM).weight, expected)


def test_other_values_are_refused(published_path, build_net) -> None:
    with pytest.raises(CheckpointError, match="must be 'mean', 'repeat' or None, got 'sum'"):
        load_pretrained(build_net(in_channels=4), published_path, input_weights='sum')


@pytest.mark.parametrize('input_weights', ['mean', 'repeat'])
def test_a_pruned_stem_stays_pruned(input_weights, build_net, tmp_path) -> None:
    state = build_net().state_dict()
    keep = torch.rand(state[f'{STEM}.weight'].shape) < 0.5
    keep[0] = False
    state[f'{STEM}.weight'] = torch.where(keep, state[f'{STEM}.weight'], 0.0)
    state[f'{STEM}.mask'] = keep
    torch.save(state, tmp_path / 'file.pth')
    net = build_net(in_channels=4)
    load_pretrained(net, tmp_path / 'file.pth', input_weights=input_weights)
    layer = dict(masked_layers(net))[STEM]
    assert not layer.mask[0].any()
    assert torch.equal(layer.mask, layer.weight != 0)
    if input_weights == 'repeat':
        assert torch.equal(layer.mask, keep[:, [0, 1, 2, 0]])


def test_another_file_by_the_command_line_keeps_it() -> None:
    """It is about the images of the network; prefix is about the file and goes with it."""
    given = dict(type='Pretrained', checkpoint='a.pth', prefix='a.', input_weights='mean')
    cfg = Config(dict(model=dict(backbone=dict(init_cfg=given))))
    set_pretrained(cfg, 'b.pth')
    expected = dict(type='Pretrained', checkpoint='b.pth', input_weights='mean')
    assert cfg.model.backbone.init_cfg == expected
    for nothing in (None, [], {}):
        cfg.model.backbone.init_cfg = nothing
        set_pretrained(cfg, 'b.pth')
        assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='b.pth')
