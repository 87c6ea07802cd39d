"""What the shifts read, against the gradient of the operator itself."""

from __future__ import annotations

import pytest
import torch

from mmsw.analysis.complexity import (
    Cover,
    layer_cover,
    network_cover,
    slot_overlaps,
    used_positions,
)
from mmsw.models import ShiftWiseNet
from mmsw.ops import ShiftPattern, shift_add
from mmsw.ops.pattern_tables import conv_margin

CASES = [
    (51, 5, 4, (7, 9)),
    (47, 3, 4, (14, 14)),
    (49, 3, 2, (4, 23)),
    (13, 3, 1, (7, 7)),
    (13, 5, 3, (1, 1)),
    (14, 3, 2, (5, 6)),
    (5, 5, 1, (3, 8)),
    (7, 1, 2, (3, 2)),
]


def gradient_of_ones(pattern: ShiftPattern, height: int, width: int) -> torch.Tensor:
    """How often each element of the small convolutions' output is read, ``[C * nk, H', W']``."""
    border = 2 * pattern.margin
    filters = pattern.channels * pattern.num_groups
    conv_out = torch.zeros(
        1, filters, height + border, width + border, dtype=torch.float64, requires_grad=True
    )
    sum(out.sum() for out in shift_add(conv_out, pattern, backend='torch')).backward()
    return conv_out.grad[0]


@pytest.mark.parametrize(('big', 'small', 'num_reps', 'size'), CASES)
def test_counts_against_the_gradient_of_ones(big, small, num_reps, size) -> None:
    pattern = ShiftPattern.draw(big, small, channels=5, num_reps=num_reps)
    grad = gradient_of_ones(pattern, *size)
    found = layer_cover(pattern, *size)
    used = (grad != 0).flatten(1).sum(1)
    assert torch.equal(used_positions(pattern, *size), used)
    assert found.outputs == grad.numel()
    assert found.used == int(used.sum())
    assert found.reads == int(grad.sum())
    assert found.filters == len(grad)
    assert found.idle_filters == int((used == 0).sum())
    assert found.used_share == pytest.approx(float((grad != 0).double().mean()))
    # each shift asks for a whole map; what lies outside is zero
    groups = pattern.num_groups
    assert found.asked == 5 * num_reps * (2 * groups + 1) * size[0] * size[1]
    assert found.reads <= found.asked
    assert found.share_per_shift == pytest.approx(
        int(grad.sum()) / (5 * num_reps * (2 * groups + 1)) / grad[0].numel()
    )


@pytest.mark.parametrize(('big', 'small', 'size'), [(c[0], c[1], c[3][0]) for c in CASES])
def test_overlaps_one_slot_at_a_time(big: int, small: int, size: int) -> None:
    """Position by position, by the formula for the offsets."""
    length = size + 2 * conv_margin(small)
    for slot, overlap in enumerate(slot_overlaps(big, small, size)):
        pad = big // 2 - slot * small - (small - 1)
        assert overlap == sum(0 <= x - pad < length for x in range(size))


def test_far_slots_on_a_small_map() -> None:
    assert slot_overlaps(13, 3, 7) == [3, 6, 7, 4, 1]
    assert slot_overlaps(47, 3, 7).count(0) == 11  # of 16
    assert slot_overlaps(51, 3, 1000).count(0) == 0


def test_filters_of_which_nothing_is_read() -> None:
    """One repetition, a map that the outer slots do not reach, and an identity elsewhere."""
    shift = torch.tensor([[2, 2], [-1, -1], [-4, -4]])  # M = 9, N = 3: offsets -3, 0, 3
    pattern = ShiftPattern(9, 3, shift, torch.tensor([[1]]))
    found = layer_cover(pattern, 1, 1)
    # of 3 x 3 outputs, the middle slot reads one; the outer ones would read at -2 and at 4
    assert torch.equal(used_positions(pattern, 1, 1), torch.tensor([0, 1, 0]))
    assert (found.idle_filters, found.reads, found.used) == (2, 3, 1)


def test_network_layer_by_layer() -> None:
    arch = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 24])
    net = ShiftWiseNet(arch, big_kernels=(13, 11, 9, 7))
    other = ShiftPattern.draw(11, 3, net.stages[1][1].shift_wise.num_active, 4, seed=7)
    net.stages[1][1].shift_wise.pattern = other
    stages = network_cover(net, (33, 40))
    assert [stage.map_size for stage in stages] == [(9, 10), (5, 5), (3, 3), (2, 2)]
    for index, stage in enumerate(stages):
        patterns = [block.shift_wise.pattern for block in net.stages[index]]
        expected = [layer_cover(pattern, *stage.map_size) for pattern in patterns]
        assert list(stage.layers) == expected
        assert stage.total == sum(expected, Cover())
        data = stage.to_dict()
        assert data['total']['used'] == sum(part['used'] for part in data['layers'])
        assert data['empty_slots'][0] == data['overlaps_horizontal'].count(0)
    assert stages[1].layers[0] != stages[1].layers[1]
    with pytest.raises(ValueError, match='shape must be'):
        network_cover(net, (0, 32))
    with pytest.raises(ValueError, match='folded'):
        network_cover(net.switch_to_deploy(), (32, 32))


@pytest.mark.parametrize('arguments', [(51, 5, 0), (51, 4, 7), (3, 5, 7)])
def test_wrong_sizes(arguments: tuple) -> None:
    with pytest.raises(ValueError, match=r'must|got'):
        slot_overlaps(*arguments)
