"""How the C++ backend lays out its work: half types, small maps, folded arms, masked gradients."""

import pytest
import torch
from shift_wise_literal import relative_error
from torch import Tensor

from mmsw.ops import ShiftPattern
from mmsw.ops.assemble import assemble
from mmsw.ops.backends import cpp_backend

pytestmark = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)

HALF_TYPES = [torch.bfloat16, torch.float16]
# maps that fill vectors only together, and sizes around them
SMALL = [(8, 7, 7), (4, 5, 3), (8, 1, 7), (2, 14, 13), (6, 16, 16), (8, 8, 2)]
PATTERNS = {sizes: ShiftPattern.draw(*sizes) for sizes in [(13, 3, 3, 2), (13, 5, 2, 1)]}


def results(pattern: ShiftPattern, x: Tensor, weight: Tensor, grads: list[Tensor]) -> list[Tensor]:
    """The three outputs, both gradients, and a shift-add with its gradient."""
    ops, sizes = torch.ops.mmsw_cpp, pattern.tables()
    wide = ops.shift_add_grad(*grads, *sizes)
    return [
        *ops.shift_wise_conv2d(x, weight, None, *sizes),
        ops.shift_wise_conv2d_grad_input(*grads, weight, None, *sizes),
        ops.shift_wise_conv2d_grad_weight(*grads, x, None, *sizes),
        *ops.shift_add(wide, *sizes),
        wide,
    ]


def tensors(pattern: ShiftPattern, shape: tuple, dtype=torch.float32) -> tuple:
    batch, height, width = shape
    maps = torch.randn(4, batch, pattern.channels, height, width).to(dtype)
    side = pattern.small_kernel
    weight = torch.randn(pattern.channels * pattern.num_groups, 1, side, side).to(dtype)
    return maps[0], weight, list(maps[1:])


@pytest.mark.parametrize('sizes', PATTERNS, ids=str)
def test_small_maps_side_by_side_are_exact(instructions: str, sizes: tuple) -> None:
    pattern = PATTERNS[sizes]
    for shape in SMALL:
        x, weight, grads = tensors(pattern, shape)
        found = results(pattern, x, weight, grads)
        exact = results(pattern, x.double(), weight.double(), [grad.double() for grad in grads])
        for index, (ours, expected) in enumerate(zip(found, exact, strict=True)):
            assert relative_error(ours, expected) < 2e-6, (shape, index)


def test_a_sample_does_not_depend_on_its_neighbours(instructions: str) -> None:
    pattern = PATTERNS[13, 3, 3, 2]
    for shape in SMALL:
        x, weight, grads = tensors(pattern, shape)
        x[1] = torch.nan
        x[-1, :, -1, -1] = torch.inf
        together = results(pattern, x, weight, grads)
        alone = results(pattern, x[:1], weight, [grad[:1] for grad in grads])
        for index in (0, 1, 2, 3):
            assert torch.equal(together[index][:1], alone[index]), (shape, index)


@pytest.mark.parametrize('dtype', HALF_TYPES, ids=str)
def test_half_types_are_float32_rounded_once(instructions: str, dtype: torch.dtype) -> None:
    pattern = PATTERNS[13, 3, 3, 2]
    for shape in [*SMALL, (1, 19, 34)]:
        x, weight, grads = tensors(pattern, shape, dtype)
        found = results(pattern, x, weight, grads)
        exact = results(pattern, x.float(), weight.float(), [grad.float() for grad in grads])
        # the shift-add of `results` reads its own gradient, which was rounded before
        exact[5:8] = torch.ops.mmsw_cpp.shift_add(found[8].float(), *pattern.tables())
        for index, (ours, wide) in enumerate(zip(found, exact, strict=True)):
            assert ours.dtype == dtype
            assert torch.equal(ours, wide.to(dtype)), (shape, index)


@pytest.mark.parametrize('dtype', HALF_TYPES, ids=str)
@pytest.mark.parametrize('factor', [1.0, 1.0078125, -0.3359375, 3.0], ids=str)
def test_every_value_of_a_half_type(instructions: str, dtype: torch.dtype, factor: float) -> None:
    """Widening keeps all 65536 values, narrowing rounds them as torch does; NaN stays NaN."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype).view(1, 1, 128, 512)
    arm, none = torch.full((1, 1, 1), factor, dtype=dtype), torch.zeros(1, 1, 1, dtype=dtype)
    expected = (values.float() * factor).to(dtype)
    for wide, tall in ((arm, none), (none, arm)):
        found = torch.ops.mmsw_cpp.cross_conv2d(values, wide, tall, None)
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(nan=0), expected.nan_to_num(nan=0))


@pytest.mark.parametrize('sizes', [(51, 3), (49, 3), (47, 3), (13, 3), (13, 5)], ids=str)
def test_folded_arms_fall_apart_into_their_slots(sizes: tuple[int, int]) -> None:
    """An infinity is only seen through the slot that is kept, wherever the arm begins."""
    pattern = ShiftPattern.draw(*sizes, 1, 1)
    side, half = pattern.small_kernel, 30
    weight = torch.zeros(pattern.num_groups, 1, side, side)
    weight[pattern.num_groups // 2] = 1
    wide, tall, _ = assemble(weight, pattern.tables())
    x = torch.zeros(1, 1, 2 * half + 1, 2 * half + 1)
    x[0, 0, half, half] = torch.inf
    expected = torch.ops.mmsw_cpp.cross_conv2d(x.nan_to_num(posinf=1), wide, tall, None) > 0
    found = torch.ops.mmsw_cpp.cross_conv2d(x, wide, tall, None)
    assert expected.sum() >= side * side
    assert torch.equal(~found.isfinite(), expected)


@pytest.mark.parametrize('taps', [(5, 7), (1, 11), (17, 1)], ids=str)
def test_the_ends_of_an_arm_are_not_padded(instructions: str, taps: tuple[int, int]) -> None:
    """Zero times infinity is NaN: an infinity beyond the last tap must not be read."""
    wide, tall = (torch.rand(1, length, 3) + 0.5 for length in taps)
    x = torch.randn(1, 1, 40, 40)
    x[0, 0, 20, 20] = torch.inf
    found = torch.ops.mmsw_cpp.cross_conv2d(x, wide, tall, None)
    finite = x.nan_to_num(posinf=0)
    reads = torch.ops.mmsw_cpp.cross_conv2d((x == torch.inf).float(), wide, tall, None) > 0
    assert reads.sum() < 3 * sum(taps) + 1
    assert torch.equal(found.isposinf(), reads)
    expected = torch.ops.mmsw_cpp.cross_conv2d(finite.double(), wide.double(), tall.double(), None)
    assert relative_error(found[~reads], expected[~reads]) < 2e-6


@pytest.mark.parametrize('reps', [1, 4])
@pytest.mark.parametrize('side', [3, 5, 7])
def test_masked_weight_gradient(instructions: str, side: int, reps: int) -> None:
    """Kept small kernels get what they get without a mask, bit for bit; the others exactly zero."""
    pattern = ShiftPattern.draw(29, side, 5, reps)
    gradient = torch.ops.mmsw_cpp.shift_wise_conv2d_grad_weight
    for shape in [(2, 17, 40), (4, 7, 7), (1, 70, 5)]:
        x, weight, grads = tensors(pattern, shape)
        mask = torch.rand(weight.shape[0]) < 0.3
        full = gradient(*grads, x, None, *pattern.tables())
        found = gradient(*grads, x, mask, *pattern.tables())
        assert torch.equal(found[mask], full[mask])
        assert torch.equal(found[~mask], torch.zeros_like(full[~mask]))


def test_masked_slots_are_not_computed() -> None:
    pattern = ShiftPattern.draw(13, 3, 2, 1)
    x, weight, grads = tensors(pattern, (1, 16, 16))
    mask = torch.zeros(weight.shape[0], dtype=torch.bool)
    gradient = torch.ops.mmsw_cpp.shift_wise_conv2d_grad_weight
    everything_off = gradient(*grads, x * torch.nan, mask, *pattern.tables())
    assert torch.equal(everything_off, torch.zeros_like(weight))
