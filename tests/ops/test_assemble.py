"""The cross kernels: where every small kernel lands, and that the way back is the transpose."""

import pytest
import torch
from torch import Tensor

from mmsw.ops import ShiftPattern
from mmsw.ops.assemble import CrossKernels, assemble, disassemble

SIZES = [(5, 3, 2, 1), (13, 3, 3, 2), (49, 3, 2, 4), (13, 5, 2, 3), (51, 5, 1, 2), (7, 1, 2, 2)]


def small_kernels(pattern: ShiftPattern) -> Tensor:
    side = pattern.small_kernel
    count = pattern.channels * pattern.num_groups
    return torch.randn(count, 1, side, side, dtype=torch.float64)


@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_every_block_lands_at_its_offset(sizes: tuple) -> None:
    pattern = ShiftPattern.draw(*sizes)
    side, reach, groups = pattern.small_kernel, pattern.reach, pattern.num_groups
    weight = small_kernels(pattern)
    wide = torch.zeros(pattern.channels, side, 2 * reach + 1, dtype=torch.float64)
    tall = torch.zeros(pattern.channels, 2 * reach + 1, side, dtype=torch.float64)
    small = torch.zeros(pattern.channels, side, side, dtype=torch.float64)
    for row, shifts in enumerate(pattern.shift_hv.tolist()):
        for shift in shifts[: pattern.num_reps]:
            first = reach - shift - (side - 1)
            wide[row // groups, :, first : first + side] += weight[row, 0]
        for shift in shifts[pattern.num_reps :]:
            first = reach - shift - (side - 1)
            tall[row // groups, first : first + side] += weight[row, 0]
    for channel, rows in enumerate(pattern.identity_index.tolist()):
        for row in rows:
            small[channel] += weight[row, 0]

    kernels = assemble(weight, pattern.tables())
    torch.testing.assert_close(kernels.wide, wide.mT, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(kernels.tall, tall, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(kernels.small, small, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize('map_size', [(1, 1), (3, 70), (70, 2), (9, 10)], ids=str)
def test_map_size_only_drops_taps_beyond_the_map(map_size: tuple[int, int]) -> None:
    pattern = ShiftPattern.draw(49, 3, 2, 2)
    weight = small_kernels(pattern)
    whole = assemble(weight, pattern.tables())
    cropped = assemble(weight, pattern.tables(), map_size)
    for arm, crop, length in zip(whole[:2], cropped[:2], reversed(map_size), strict=True):
        reach = min(pattern.reach, length - 1)
        assert crop.shape[1] == 2 * reach + 1
        assert torch.equal(crop, arm[:, pattern.reach - reach : pattern.reach + reach + 1])
    assert torch.equal(cropped.small, whole.small)


@pytest.mark.parametrize('map_size', [None, (1, 1), (3, 70), (12, 5)], ids=str)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_disassemble_is_the_transpose(sizes: tuple, map_size: tuple[int, int] | None) -> None:
    pattern = ShiftPattern.draw(*sizes)
    weight = small_kernels(pattern).requires_grad_()
    kernels = assemble(weight, pattern.tables(), map_size)
    grads = CrossKernels(*map(torch.randn_like, kernels))
    (expected,) = torch.autograd.grad(kernels, weight, grads)
    found = disassemble(grads, pattern.tables())
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_empty_slots_hold_exact_zeros() -> None:
    """With R = 1 a pruned group empties its slot; with R = 4 only a slot pruned four times is."""
    for num_reps in (1, 4):
        pattern = ShiftPattern.draw(49, 3, 6, num_reps)
        kept = torch.rand(6 * pattern.num_groups) > 0.5
        weight = small_kernels(pattern) * kept.view(-1, 1, 1, 1)
        tall = assemble(weight, pattern.tables()).tall
        first = pattern.reach - pattern.big_kernel // 2
        slots = tall[:, first : first + 3 * pattern.num_groups].reshape(6, -1, 9)
        expected = torch.zeros(6, pattern.num_groups, dtype=torch.bool)
        for row in kept.nonzero().flatten().tolist():
            for shift in pattern.shift_hv[row, num_reps:].tolist():
                expected[row // pattern.num_groups, (24 - 2 - shift) // 3] = True
        assert torch.equal(slots.ne(0).any(2), expected)
        assert not expected.all()
        assert not tall[:, :first].any()
        assert not tall[:, first + 3 * pattern.num_groups :].any()
