"""ShiftWiseNet.get_layer_depth, by which learning rates fall towards the input."""

import pytest
import torch
from model_helpers import SHORT_KERNELS

from mmsw.models import ShiftWiseNet

# SW-T v2: depths 3, 3, 18, 3
LAYER_DEPTHS = {
    'downsample_layers.0.0.weight': 0,
    'downsample_layers.0.4.bias': 0,
    'stages.0.0.gamma': 1,
    'stages.0.2.norm.weight': 1,
    'downsample_layers.1.0.weight': 2,
    'stages.1.2.se.up.bias': 2,
    'downsample_layers.2.1.weight': 3,
    'stages.2.0.shift_wise.paths.0.weight': 3,
    'stages.2.2.gamma': 3,
    'stages.2.3.gamma': 4,
    'stages.2.17.gamma': 8,
    'downsample_layers.3.0.weight': 9,
    'stages.3.0.gamma': 9,
    'stages.3.2.grn.beta': 9,
    'norm0.weight': 10,
    'norm3.bias': 10,
}


@pytest.fixture(scope='module')
def tiny() -> ShiftWiseNet:
    with torch.device('meta'):
        return ShiftWiseNet('tiny', 'v2', drop_path_rate=0.4)


def test_layer_depth_of_the_published_tiny(tiny) -> None:
    for prefix in ('', 'backbone.', 'detector.backbone.'):
        found = {n: tiny.get_layer_depth(prefix + n, prefix) for n in LAYER_DEPTHS}
        assert found == {name: (depth, 11) for name, depth in LAYER_DEPTHS.items()}


def test_layer_depth_of_names_outside_the_backbone_come_last(tiny) -> None:
    for name in ('decode_head.conv_seg.weight', 'neck.stages.0.0.weight', 'stages.0.0.gamma'):
        assert tiny.get_layer_depth(name, 'backbone.') == (10, 11)


def test_layer_depth_never_falls_along_the_network_and_misses_none(tiny) -> None:
    def place(name: str) -> tuple:
        kind, *rest = name.split('.')
        if kind == 'downsample_layers':
            return int(rest[0]), -1
        return (int(rest[0]), int(rest[1])) if kind == 'stages' else (9, 9)

    names = sorted((n for n, _ in tiny.named_parameters()), key=place)
    depths = [tiny.get_layer_depth(name)[0] for name in names]
    assert depths == sorted(depths)
    assert set(depths) == set(range(11))


@pytest.mark.parametrize(('depth', 'count'), [(1, 6), (3, 6), (4, 7), (9, 8), (27, 14)])
def test_number_of_layer_depths(depth, count) -> None:
    arch = dict(depths=[1, 1, depth, 1], dims=[8, 8, 8, 8])
    with torch.device('meta'):
        net = ShiftWiseNet(arch, big_kernels=SHORT_KERNELS)
    last = f'stages.2.{depth - 1}.gamma'
    assert net.get_layer_depth(last) == (count - 3, count)
    assert net.get_layer_depth('stages.3.0.gamma') == (count - 2, count)
