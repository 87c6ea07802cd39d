"""Figures of sparsity: counted by hand on one channel, equal to those of layers and networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmsw.analysis.complexity import complexity
from mmsw.analysis.complexity.operator_work import layer_work
from mmsw.analysis.sparsity.figures import Placed, analyze, layer_figures
from mmsw.analysis.sparsity.layers import ShiftWiseLayer, read_network
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet
from mmsw.ops import ShiftPattern
from mmsw.ops.assemble import assemble
from mmsw.sparsity import masks, set_masks

MINI = dict(depths=[1, 1, 2, 1], dims=[16, 24, 32, 40])


def hand_made_pattern(num_reps: int) -> ShiftPattern:
    """M = 9, N = 3: three slots, at offsets -3, 0 and 3 (shifts 2, -1 and -4), one channel.

    Horizontal arm: groups 1, 2, 0 from left to right; vertical arm: groups 0, 1, 2 from top to
    bottom. The second repetition has both in ascending order. The identity uses group 1, then 2.
    """
    horizontal = torch.tensor([[-4, 2], [2, -1], [-1, -4]])[:, :num_reps]
    vertical = torch.tensor([[2, 2], [-1, -1], [-4, -4]])[:, :num_reps]
    return ShiftPattern(
        9, 3, torch.cat([horizontal, vertical], 1), torch.tensor([[1, 2]])[:, :num_reps]
    )


def keeping(*paths: list[int]) -> Tensor:
    """Masks of whole filters, three per path."""
    masks = torch.zeros(len(paths), 3, 3, 3, dtype=torch.bool)
    for path, kept in enumerate(paths):
        masks[path, kept] = True
    return masks


def test_one_channel_counted_by_hand() -> None:
    part = layer_figures(ShiftWiseLayer(0, 0, keeping([0, 2]), hand_made_pattern(1)), 5, 4)
    assert (part.density.kept, part.density.total) == (2, 3)
    full, empty = Placed(1, 1, 1, 1), Placed(0, 1, 0, 1)
    assert part.places == {
        ('horizontal', -3): empty,  # group 1
        ('horizontal', 0): full,
        ('horizontal', 3): full,
        ('vertical', -3): full,
        ('vertical', 0): empty,  # group 1
        ('vertical', 3): full,
    }
    assert part.by_distance() == {0: Placed(1, 2, 1, 2), 3: Placed(3, 4, 3, 4)}
    assert part.identity == empty  # group 1
    assert part.dense == 7 * 9 * 20
    assert part.used == 4 * 9 * 20
    assert part.covered_density == part.arms.block_density == 2 / 3
    assert not part.paths_differ


def test_two_repetitions_and_paths_counted_by_hand() -> None:
    part = layer_figures(ShiftWiseLayer(0, 0, keeping([0], [0, 1]), hand_made_pattern(2)), 1, 1)
    assert [path.kept for path in part.paths] == [1, 2]
    assert (part.slots, part.shared, part.covered) == (3, 1, 2)
    assert part.paths_differ
    assert part.places == {
        # two repetitions of two paths are four placements; one channel is one block
        ('horizontal', -3): Placed(3, 4, 1, 1),  # group 1 (one path), then 0 (both)
        ('horizontal', 0): Placed(1, 4, 1, 1),  # group 2 (none), then 1 (one)
        ('horizontal', 3): Placed(2, 4, 1, 1),  # group 0 (both), then 2 (none)
        ('vertical', -3): Placed(4, 4, 1, 1),  # group 0 twice
        ('vertical', 0): Placed(2, 4, 1, 1),  # group 1 twice
        ('vertical', 3): Placed(0, 4, 0, 1),  # group 2 twice
    }
    assert part.identity == Placed(1, 4, 1, 1)  # group 1 (one path), then 2 (none)
    assert part.used == (5 + 1) * 9
    assert part.work_left == 6 / 7


def test_a_filter_of_which_one_weight_is_left_is_kept() -> None:
    masks = keeping([0, 2])
    masks[0, 0] = False
    masks[0, 0, 1, 1] = True
    part = layer_figures(ShiftWiseLayer(0, 0, masks, hand_made_pattern(1)), 1, 1)
    assert (part.density.kept, part.density.weights_kept) == (2, 10)
    assert part.used == 4 * 9  # blocks are computed whole
    both = torch.cat([masks, keeping([0, 2])])
    part = layer_figures(ShiftWiseLayer(0, 0, both, hand_made_pattern(1)), 1, 1)
    assert not part.paths_differ  # in filters
    assert part.unshared_weights == 8


@pytest.mark.parametrize(('big', 'small'), [(51, 3), (49, 3), (47, 3), (13, 5), (12, 3)])
def test_offsets_are_where_the_cross_kernel_has_the_filter(big: int, small: int) -> None:
    pattern = ShiftPattern.draw(big, small, channels=1, num_reps=1)
    for group in range(pattern.num_groups):
        mask = torch.zeros(1, pattern.num_groups, small, small, dtype=torch.bool)
        mask[0, group] = True
        part = layer_figures(ShiftWiseLayer(0, 0, mask, pattern), 1, 1)
        arms = assemble(mask[0].float(), pattern.tables())  # [C, taps, N]
        for name, arm in (('horizontal', arms.wide), ('vertical', arms.tall)):
            (found,) = [o for (a, o), placed in part.places.items() if a == name and placed.kept]
            taps = arm[0].any(1).nonzero().flatten() - arm.shape[1] // 2
            assert found == int(taps.float().mean())


@pytest.mark.parametrize('num_reps', [1, 4])
def test_work_is_that_of_the_layer(num_reps: int) -> None:
    layer = ShiftWiseConv2d(8, 8, 13, num_paths=2, num_reps=num_reps)
    for path in layer.paths:
        path.set_mask(torch.rand(len(path.mask), 1, 1, 1) < 0.15)
    stacked = torch.stack([path.mask.squeeze(1) for path in layer.paths])
    part = layer_figures(ShiftWiseLayer(0, 0, stacked, layer.pattern), 6, 7)
    dense, used, _ = layer_work(layer, 1, 6, 7)
    assert (part.dense, part.used) == (dense, used)
    assert used < dense
    assert used == (part.arms.blocks_left + part.identity.blocks_left) * 9 * 42
    if num_reps == 1:
        assert part.arms.block_density == part.covered_density


def test_whole_slots_pruned_leave_no_work_there() -> None:
    """With R = 1 and no permutation, a slot that every channel prunes falls away."""
    slots, channels = 5, 4
    shifts = torch.tensor([[4 - 3 * i] * 2 for i in range(slots)]).repeat(channels, 1)
    identity = torch.arange(channels).view(-1, 1) * slots  # group 0
    pattern = ShiftPattern(13, 3, shifts, identity)
    mask = torch.ones(1, channels, slots, 3, 3, dtype=torch.bool)
    mask[:, :, [0, 4]] = False  # the two ends
    part = layer_figures(ShiftWiseLayer(0, 0, mask.flatten(1, 2), pattern), 2, 2)
    assert {d: p.density for d, p in part.by_distance().items()} == {1: 1, 2: 1, 4: 1, 5: 0, 7: 0}
    assert part.identity.density == 0
    assert part.used == channels * 2 * 3 * 9 * 4
    assert part.dense == channels * 11 * 9 * 4


@pytest.mark.parametrize('version', ['v1', 'v2'])
@pytest.mark.parametrize('shape', [(64, 96), (70, 45), (20, 40)])
def test_work_at_a_shape_is_that_of_the_network(version: str, shape: tuple[int, int]) -> None:
    net = ShiftWiseNet(MINI, version, big_kernels=(13, 13, 7, 5), num_reps=2)
    set_masks(net, {name: torch.rand(mask.shape) < 0.2 for name, mask in masks(net).items()})
    found = analyze(read_network(net.state_dict(), 'net'), shape)
    counted = complexity(net, shape).modules
    names = [f'stages.{layer.stage}.{layer.block}.shift_wise' for layer in found.network.layers]
    assert [(part.dense, part.used) for part in found.layers] == [
        (counted[name].macs_dense, counted[name].macs_used) for name in names
    ]
    pointwise = [cost.macs_dense for name, cost in counted.items() if '.pointwise_conv' in name]
    assert found.total.pointwise == sum(pointwise)
    assert found.total == sum(found.stages[1:], found.stages[0])
