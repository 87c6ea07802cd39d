"""Closed forms against the text's five ratios, and against real layers counted one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmsw.analysis.complexity import (
    compare_modules,
    complexity,
    complexity_ratio,
    network_cover,
    shift_additions,
    shift_wise_macs,
    shift_wise_parameters,
    slak_pair_macs,
    slak_pair_parameters,
)
from mmsw.analysis.complexity.closed_forms import PUBLISHED_RATIOS, ratio_of
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet, SLaK
from mmsw.ops import ShiftPattern, shift_add
from mmsw.ops.work import count_flops_of_operators
from mmsw.sparsity import magnitude_masks, set_masks

SIZES = [(51, 5), (47, 3), (13, 5), (5, 5), (14, 3), (7, 1)]
MAPS = [(9, 14), (1, 1), (7, 2)]


class SlakPair(nn.Module):
    """The two large convolutions as SLaK has them, literally."""

    def __init__(self, channels: int, big: int, small: int) -> None:
        super().__init__()
        settings = dict(padding='same', groups=channels, bias=False)
        self.wide = nn.Conv2d(channels, channels, (small, big), **settings)
        self.tall = nn.Conv2d(channels, channels, (big, small), **settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wide(x) + self.tall(x)


@pytest.mark.parametrize(
    ('big', 'printed'), [(51, 1.85), (49, 1.96), (45, 2.00), (13, 1.73), (5, 2.00)]
)
def test_the_five_ratios_of_the_text(big: int, printed: float) -> None:
    assert round(complexity_ratio(big, 5), 2) == printed
    assert ratio_of(big, 5).published == PUBLISHED_RATIOS[big] == printed
    # of nothing else than N = 5
    assert ratio_of(big, 3).published is None


def test_the_text_names_47_where_its_ratio_belongs_to_45() -> None:
    assert round(complexity_ratio(47, 5), 2) == 1.88
    assert ratio_of(47, 5).published is None


@pytest.mark.parametrize('size', MAPS)
@pytest.mark.parametrize(('big', 'small'), SIZES)
def test_pair_against_real_convolutions(big: int, small: int, size: tuple[int, int]) -> None:
    channels = 3
    found = complexity(SlakPair(channels, big, small), (channels, *size))
    assert slak_pair_parameters(channels, big, small) == found.parameters
    assert slak_pair_macs(channels, big, small, *size) == found.macs_dense
    assert slak_pair_macs(channels, big, small, *size, batch=4) == 4 * found.macs_dense


@pytest.mark.parametrize('size', MAPS)
@pytest.mark.parametrize(('big', 'small'), SIZES)
def test_small_convolutions_against_a_real_one(big: int, small: int, size: tuple[int, int]) -> None:
    channels, groups = 4, -(-big // small)
    real = nn.Conv2d(
        channels, channels * groups, small, padding=small - 1, groups=channels, bias=False
    )
    found = complexity(real, (channels, *size))
    assert shift_wise_parameters(channels, big, small) == found.parameters
    assert shift_wise_macs(channels, big, small, *size) == found.macs_dense
    assert shift_wise_macs(channels, big, small, *size, batch=2) == 2 * found.macs_dense
    layer = ShiftWiseConv2d(channels, channels, big, small, ghost_ratio=0.0, num_paths=1)
    assert complexity(layer, (channels, *size)).total.macs_naive == found.macs_dense
    assert layer.paths[0].weight.numel() == found.parameters
    ratio = slak_pair_parameters(channels, big, small) / found.parameters
    assert complexity_ratio(big, small) == pytest.approx(ratio, rel=1e-12)
    border = ratio_of(big, small, size).with_border
    assert border == pytest.approx(slak_pair_macs(4, big, small, *size) / found.macs_dense)
    assert border <= ratio


@pytest.mark.parametrize('num_reps', [1, 3])
def test_additions_against_the_counted_operator(num_reps: int) -> None:
    count_flops_of_operators()
    pattern = ShiftPattern.draw(13, 3, channels=4, num_reps=num_reps)
    conv_out = torch.zeros(2, 4 * 5, 6 + 2, 7 + 2)
    with FlopCounterMode(display=False) as counter:
        shift_add(conv_out, pattern, backend='torch')
    assert shift_additions(4, 13, 3, num_reps, 6, 7, batch=2) == counter.get_total_flops()
    # literally: every group into either arm, and one into the identity
    assert shift_additions(4, 13, 3, num_reps, 6, 7) == 4 * 6 * 7 * num_reps * (5 + 5 + 1)


@pytest.mark.parametrize(
    ('function', 'arguments', 'message'),
    [
        (slak_pair_parameters, (0, 51, 5), 'channels'),
        (slak_pair_parameters, (8, 51, 4), 'must be odd'),
        (shift_wise_parameters, (8, 3, 5), 'must not exceed'),
        (slak_pair_macs, (8, 51, 5, 0, 4), 'height'),
        (shift_wise_macs, (8, 51, 5, 4, -1), 'width'),
        (shift_additions, (8, 51, 5, 0, 4, 4), 'num_reps'),
        (complexity_ratio, (51, 0), 'small_kernel'),
        (complexity_ratio, (5.5, 5), 'big_kernel'),
    ],
)
def test_wrong_sizes(function, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@pytest.fixture(scope='module')
def net() -> ShiftWiseNet:
    arch = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 24])
    net = ShiftWiseNet(arch, version='v1', big_kernels=(13, 11, 9, 7), num_reps=1)
    set_masks(net, magnitude_masks(net, 0.5))
    return net


def test_modules_against_the_layers_of_the_network(net: ShiftWiseNet) -> None:
    found = compare_modules(net, (64, 96), name='mini')
    total = complexity(net, (64, 96))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    for index, (stage, size) in enumerate(zip(found.stages, sizes, strict=True)):
        own, layer = stage.shift_wise, net.stages[index][0].shift_wise
        counted = total.modules[f'stages.{index}.0.shift_wise']
        assert stage.map_size == size
        assert (own.channels, own.blocks) == (layer.num_active, len(net.stages[index]))
        assert own.parameters == layer.paths[0].weight.numel() == own.trained // 2
        assert 2 * own.macs == counted.macs_naive  # of two paths
        assert (own.cross, own.cross_used) == (counted.macs_dense, counted.macs_used)
        assert own.cross_used < own.cross
        pair = SlakPair(stage.slak.channels, stage.slak.big_kernel, stage.slak.small_kernel)
        real = complexity(pair, (stage.slak.channels, *size))
        assert (stage.slak.parameters, stage.slak.macs) == (real.parameters, real.macs_dense)
        assert stage.parameter_ratio == real.parameters / own.parameters
    assert found.totals()['shift_wise_parameters'] == sum(
        block.shift_wise.paths[0].weight.numel() for stage in net.stages for block in stage
    )
    assert found.totals()['slak_macs'] == sum(
        depth * stage.slak.macs for depth, stage in zip((3, 3, 9, 3), found.stages, strict=True)
    )


def test_slak_as_published_and_others(net: ShiftWiseNet) -> None:
    stages = compare_modules(net, (224, 224)).stages
    assert [stage.slak.channels for stage in stages] == [124, 249, 499, 998]
    assert [stage.slak.big_kernel for stage in stages] == [51, 49, 47, 13]
    assert stages[0].slak.parameters == 124 * 51 * 5 + 124 * 5 * 51
    base = compare_modules(net, (224, 224), slak='base', width_factor=1).stages
    assert [stage.slak.channels for stage in base] == [128, 256, 512, 1024]
    assert [stage.slak.blocks for stage in base] == [3, 3, 27, 3]
    for settings, message in (
        (dict(slak='large'), 'slak must be one of tiny, small, base'),
        (dict(width_factor=0), 'width_factor must be positive'),
        (dict(shape=(224,)), 'shape must be'),
    ):
        with pytest.raises(ValueError, match=message):
            compare_modules(net, **dict(shape=(224, 224)) | settings)


def test_networks_that_cannot_stand_beside_a_slak() -> None:
    arch = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
    short = ShiftWiseNet(arch, big_kernels=(9, 9, 7, 5), out_indices=(0, 1))
    with pytest.raises(ValueError, match='has 2 stages, but a SLaK has 4'):
        compare_modules(short, (64, 64))
    folded = ShiftWiseNet(arch, big_kernels=(9, 9, 7, 5)).switch_to_deploy()
    with pytest.raises(ValueError, match='folded'):
        compare_modules(folded, (64, 64))


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (dict(padding='same'), "padding='same'"),
        (dict(identity='blur', position=True), "position=True, identity='blur'"),
    ],
)
def test_other_operators_than_the_published_one_are_refused(options: dict, told: str) -> None:
    arch = dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8])
    net = ShiftWiseNet(arch, 'v2', big_kernels=(21, 21, 21, 21), **options)
    for count in (compare_modules, network_cover):
        with pytest.raises(ValueError, match=f'have {told}, but the counts are of the published'):
            count(net, (64, 64))


def test_slak_in_closed_form_is_the_backbone_here(net: ShiftWiseNet) -> None:
    slak = SLaK('tiny', out_indices=(3,), output_norm=False)
    counted = complexity(slak, (224, 224)).modules
    for index, stage in enumerate(compare_modules(net, (224, 224)).stages):
        assert stage.slak.blocks == len(slak.stages[index])
        for block in range(stage.slak.blocks):
            pair = [
                counted[f'stages.{index}.{block}.large_kernel.{branch}.conv']
                for branch in ('vertical', 'horizontal')
            ]
            assert sum(cost.parameters for cost in pair) == stage.slak.parameters
            assert sum(cost.macs_dense for cost in pair) == stage.slak.macs
