"""mmsw.sparsity.report: exact counts per layer, per stage and in all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmsw import sparsity
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.sparsity import Density, attach_masks
from mmsw.sparsity.parts import part_of_layer


@pytest.fixture
def net() -> ShiftWiseNet:
    """Stages of 1, 1, 2 and 1 blocks; 6 channels in the operator; two paths."""
    arch = dict(depths=[1, 1, 2, 1], dims=[8, 8, 8, 8])
    return ShiftWiseNet(arch, big_kernels=(9, 7, 6, 3))


# Filters of both paths of a layer in stages 0 to 3: 2 paths x 6 channels x groups.
FILTERS = (2 * 6 * 3, 2 * 6 * 3, 2 * 6 * 2, 2 * 6 * 1)


def prune(net: nn.Module, name: str, filters: int = 0, weights: int = 0) -> None:
    """Drop the first whole filters, then single weights of the next filter."""
    mask = torch.ones_like(net.get_submodule(name).mask)
    mask[:filters] = False
    mask[filters].view(-1)[:weights] = False
    net.get_submodule(name).set_mask(mask)


def test_dense_network(net) -> None:
    report = sparsity.report(net)
    assert {s: (d.kept, d.total) for s, d in report.stages.items()} == {
        0: (FILTERS[0], FILTERS[0]),
        1: (FILTERS[1], FILTERS[1]),
        2: (2 * FILTERS[2], 2 * FILTERS[2]),
        3: (FILTERS[3], FILTERS[3]),
    }
    total = sum(FILTERS) + FILTERS[2]
    assert report.total == Density(total, total, 9 * total, 9 * total)
    assert report.total.density == report.total.weight_density == 1
    assert not report.total.is_sparse


def test_whole_filters_per_path(net) -> None:
    prune(net, 'stages.0.0.shift_wise.paths.0', filters=5)
    prune(net, 'stages.0.0.shift_wise.paths.1', filters=1)
    prune(net, 'stages.2.1.shift_wise.paths.1', filters=4)
    report = sparsity.report(net)
    assert report.layers['stages.0.0.shift_wise'] == Density(30, 36, 30 * 9, 36 * 9)
    assert report.layers['stages.2.0.shift_wise'] == Density(24, 24, 24 * 9, 24 * 9)
    assert report.layers['stages.2.1.shift_wise'] == Density(20, 24, 20 * 9, 24 * 9)
    assert len(report.layers) == 5
    assert report.stages[0] == Density(30, 36, 30 * 9, 36 * 9)
    assert report.stages[2] == Density(44, 48, 44 * 9, 48 * 9)
    total = 36 + 36 + 48 + 12
    assert report.total == Density(total - 10, total, 9 * (total - 10), 9 * total)
    assert report.total.density == pytest.approx(122 / 132)
    assert report.total.is_sparse


def test_single_weights(net) -> None:
    """A filter counts as kept while any weight of it is left."""
    prune(net, 'stages.3.0.shift_wise.paths.0', filters=2, weights=4)
    report = sparsity.report(net)
    assert report.stages[3] == Density(10, 12, 12 * 9 - 2 * 9 - 4, 12 * 9)
    assert report.stages[3].weight_density < report.stages[3].density
    prune(net, 'stages.3.0.shift_wise.paths.0', filters=2, weights=9)
    assert sparsity.report(net).stages[3] == Density(9, 12, 9 * 9, 12 * 9)


def test_single_weights_alone_make_a_network_sparse(net) -> None:
    prune(net, 'stages.1.0.shift_wise.paths.0', weights=1)
    total = sparsity.report(net).total
    assert total.density == 1
    assert total.is_sparse


def test_an_empty_path_does_not_empty_the_layer(net) -> None:
    prune(net, 'stages.1.0.shift_wise.paths.0', filters=17, weights=9)
    assert sparsity.report(net).layers['stages.1.0.shift_wise'] == Density(18, 36, 162, 324)


def test_backbone_in_a_model_counts_the_same(net) -> None:
    prune(net, 'stages.0.0.shift_wise.paths.0', filters=5)
    alone = sparsity.report(net)
    inside = sparsity.report(nn.ModuleDict({'backbone': net, 'head': nn.Conv2d(8, 4, 1)}))
    assert inside.stages == alone.stages
    assert inside.total == alone.total
    assert list(inside.layers) == [f'backbone.{name}' for name in alone.layers]


def test_layers_outside_stages() -> None:
    model = nn.Sequential(ShiftWiseConv2d(8, 8, 9), nn.ReLU())
    prune(model, '0.paths.0', filters=9)
    report = sparsity.report(model)
    assert report.stages == {-1: Density(27, 36, 27 * 9, 36 * 9)}
    assert str(report).splitlines()[0].split()[0] == 'elsewhere'


@pytest.mark.parametrize('model', [nn.Linear(2, 2), nn.Sequential()])
def test_models_without_masks(model) -> None:
    report = sparsity.report(model)
    assert report.layers == {}
    assert report.stages == {}
    assert report.total == Density()
    assert report.total.density == 1
    assert not report.total.is_sparse


def test_table(net) -> None:
    prune(net, 'stages.0.0.shift_wise.paths.0', filters=9)
    prune(net, 'stages.3.0.shift_wise.paths.1', weights=3)
    assert str(sparsity.report(net)).splitlines() == [
        'stage 0   27/36 filters (75.00%)',
        'stage 1   36/36 filters (100.00%)',
        'stage 2   48/48 filters (100.00%)',
        'stage 3   12/12 filters (100.00%), 105/108 weights (97.22%)',
        'in all    123/132 filters (93.18%), 1104/1188 weights (92.93%)',
    ]


def test_densities_add_up() -> None:
    assert Density(1, 2, 3, 4) + Density(10, 20, 30, 40) == Density(11, 22, 33, 44)


def test_parts_of_a_network_whose_layers_got_masks() -> None:
    backbone = nn.ModuleDict(
        dict(
            conv1=nn.Conv2d(3, 4, 3),
            layer1=nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)),
            layer2=nn.Sequential(nn.Conv2d(4, 8, 3)),
        )
    )
    heads = nn.ModuleDict(dict(bbox_head=nn.Linear(8, 4), mask_head=nn.Linear(8, 2)))
    model = nn.ModuleDict(dict(backbone=backbone, neck=nn.Conv2d(8, 8, 1), roi_head=heads))
    attach_masks(model, r'\.weight$')
    new = sparsity.masks(model)
    new['backbone.layer1.0'][:3] = False
    new['backbone.layer1.1'][0] = False
    new['roi_head.mask_head'][:, 0] = False
    sparsity.set_masks(model, new)
    report = sparsity.report(model)
    assert report.parts == {
        'backbone, rest': Density(4, 4, 108, 108),
        'backbone.layer1': Density(4, 8, 48, 160),
        'backbone.layer2': Density(8, 8, 288, 288),
        'neck': Density(8, 8, 64, 64),
        'roi_head.bbox_head': Density(4, 4, 32, 32),
        'roi_head.mask_head': Density(2, 2, 14, 16),
    }
    assert str(report).splitlines() == [
        'backbone, rest     4/4 filters (100.00%)',
        'backbone.layer1    4/8 filters (50.00%), 48/160 weights (30.00%)',
        'backbone.layer2    8/8 filters (100.00%)',
        'neck               8/8 filters (100.00%)',
        'roi_head.bbox_head 4/4 filters (100.00%)',
        'roi_head.mask_head 2/2 filters (100.00%), 14/16 weights (87.50%)',
        'in all             30/34 filters (88.24%), 554/668 weights (82.93%)',
    ]


@pytest.mark.parametrize(
    ('layer', 'part'),
    [
        ('backbone.layer4.2.conv3', 'backbone.layer4'),
        ('backbone.stages.1.blocks.0.attn.w_msa.qkv', 'backbone.stages.1'),
        ('backbone.downsample_layers.1.1', 'backbone, rest'),
        ('module.backbone.layers.11.attn.qkv', 'backbone.layers.11'),
        ('layer1.0.conv1', 'layer1'),
        ('stages.3.2.depthwise_conv', 'stages.3'),
        ('features.5.1.block.0', 'features.5'),
        ('layering.0', 'layering'),
        ('fc', 'fc'),
        ('decode_head.convs.0.conv', 'decode_head'),
        ('roi_head.bbox_head.0.fc_cls', 'roi_head.bbox_head'),
        ('encoder.layers.0.ffn', 'encoder'),
        ('0.conv', 'elsewhere'),
        ('', 'elsewhere'),
    ],
)
def test_part_of_a_layer_by_its_name(layer: str, part: str) -> None:
    assert part_of_layer(layer) == part
