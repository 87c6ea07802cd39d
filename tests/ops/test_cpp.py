"""What only the C++ backend has: instruction sets, skipped blocks, the fused cross form."""

import pytest
import torch
from shift_wise_literal import relative_error
from torch import Tensor

from mmsw.ops import ShiftPattern, cross_conv2d
from mmsw.ops.backends import cpp_backend, torch_backend

pytestmark = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)

# (M, N, C, R), with sides that have loops of their own (3, 5) and sides that do not
SIZES = [(51, 3, 3, 4), (13, 5, 2, 2), (7, 1, 2, 1), (15, 7, 2, 2), (43, 21, 1, 2)]
# around the tiles of the loops (4 or 8 rows, 4 to 32 columns), and smaller than the reach
SHAPES = [(1, 1, 1), (2, 8, 16), (2, 9, 33), (1, 3, 70), (1, 70, 3), (1, 16, 15), (3, 31, 64)]


def all_results(backend, pattern: ShiftPattern, *tensors: Tensor) -> list[Tensor]:
    """Every function of a backend on a map, small kernels, a conv output and three gradients."""
    x, weight, conv_out, *grads = tensors
    tables = pattern.tables()
    return [
        *backend.shift_wise_conv2d(x, weight, tables),
        backend.shift_wise_conv2d_grad_input(grads, weight, tables),
        backend.shift_wise_conv2d_grad_weight(grads, x, tables),
        *backend.shift_add(conv_out, tables),
        backend.shift_add_grad(grads, tables),
    ]


def random_tensors(
    pattern: ShiftPattern, batch: int, height: int, width: int, dtype: torch.dtype
) -> list[Tensor]:
    side, border = pattern.small_kernel, 2 * pattern.margin
    groups = pattern.channels * pattern.num_groups
    map_shape = batch, pattern.channels, height, width
    weight = torch.randn(groups, 1, side, side, dtype=dtype)
    weight[torch.rand(groups) < 0.5] = 0
    conv_out = torch.randn(batch, groups, height + border, width + border, dtype=dtype)
    return [
        torch.randn(map_shape, dtype=dtype),
        weight,
        conv_out,
        *(torch.randn(map_shape, dtype=dtype) for _ in range(3)),
    ]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_every_instruction_set_is_exact(instructions: str, sizes: tuple, dtype) -> None:
    assert cpp_backend.instruction_set() == instructions
    pattern = ShiftPattern.draw(*sizes)
    for shape in SHAPES:
        tensors = random_tensors(pattern, *shape, dtype)
        found = all_results(cpp_backend, pattern, *tensors)
        expected = all_results(torch_backend, pattern, *(t.double() for t in tensors))
        for index, (ours, exact) in enumerate(zip(found, expected, strict=True)):
            bound = 1e-12 if dtype == torch.float64 else 5e-6
            assert relative_error(ours, exact) < bound, (shape, index)


def test_an_unknown_instruction_set_is_refused() -> None:
    before = cpp_backend.instruction_set()
    with pytest.raises(ValueError, match=r"^instruction set 'mmx' is unknown or not supported"):
        cpp_backend.set_instruction_set('mmx')
    assert cpp_backend.instruction_set() == before


def test_threads_and_repetition_change_no_bit() -> None:
    pattern = ShiftPattern.draw(49, 3, 5, 3)
    tensors = random_tensors(pattern, 3, 37, 45, torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = all_results(cpp_backend, pattern, *tensors)
        torch.set_num_threads(2)
        two = all_results(cpp_backend, pattern, *tensors)
        again = all_results(cpp_backend, pattern, *tensors)
    finally:
        torch.set_num_threads(threads)
    for first, second, third in zip(one, two, again, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(second, third)


def test_pruned_blocks_are_not_computed() -> None:
    """Zero times infinity is NaN, unless the product is never formed."""
    pattern = ShiftPattern.draw(15, 3, 1, 1)
    tables = pattern.tables()
    x = torch.full((1, 1, 20, 20), torch.inf)
    pruned = torch.zeros(5, 1, 3, 3)
    for out in cpp_backend.shift_wise_conv2d(x, pruned, tables):
        assert torch.equal(out, torch.zeros_like(out))
    kept = pruned.clone()
    kept[0, 0, 0, 0] = 1  # its block is computed, with eight zeros that meet infinity
    assert cpp_backend.shift_wise_conv2d(x, kept, tables)[0].isnan().any()


@pytest.mark.parametrize('bad', [torch.inf, -torch.inf, torch.nan])
def test_a_weight_that_is_no_number_shows_in_its_channel_only(bad: float) -> None:
    """It may reach a few more places of the channel than its tap does, but none fewer."""
    pattern = ShiftPattern.draw(51, 5, 3, 2)
    x, weight, *_ = random_tensors(pattern, 2, 33, 16, torch.float32)
    broken = weight.clone()
    broken[2, 0, 1, 1] = bad
    weight = torch.zeros_like(weight)
    weight[2, 0, 1, 1] = 1
    reached = torch_backend.shift_wise_conv2d(x.abs() + 1, weight, pattern.tables())
    found = cpp_backend.shift_wise_conv2d(x, broken, pattern.tables())
    for out, touched in zip(found, reached, strict=True):
        assert not out[touched != 0].isfinite().any()
        assert out[:, 1:].isfinite().all()
    assert reached[0].any()
    assert reached[1].any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('taps', [(9, 5), (1, 17), (53, 53)], ids=str)
def test_fused_cross_form(instructions: str, taps: tuple[int, int], dtype) -> None:
    tensors = [
        torch.randn(2, 3, 19, 34, dtype=dtype),
        torch.randn(3, taps[0], 3, dtype=dtype),
        torch.randn(3, taps[1], 3, dtype=dtype),
        torch.randn(3, dtype=dtype),
    ]
    found = cpp_backend.cross_conv2d(*tensors)
    expected = torch_backend.cross_conv2d(*(t.double() for t in tensors))
    assert found.dtype == dtype
    assert relative_error(found, expected) < (1e-12 if dtype == torch.float64 else 5e-6)


def test_gradients_of_the_cross_form() -> None:
    shapes = [(2, 2, 5, 6), (2, 7, 3), (2, 3, 3), (2,)]
    tensors = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(lambda *t: cross_conv2d(*t, backend='cpp'), tensors)


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(x=torch.ones(3, 4, 5)), ValueError, r'^x must be \[B, C, H, W\]'),
        (dict(wide=torch.ones(3, 4, 3)), ValueError, r'^wide must be \[3, taps, N\] with odd taps'),
        (dict(tall=torch.ones(3, 5, 5)), ValueError, r'^tall must be .* got \[3, 5, 5\]$'),
        (dict(tall=torch.ones(3, 5, 3).double()), TypeError, r'^x and tall must have one dtype'),
        (dict(bias=torch.ones(2)), ValueError, r'^bias must be \[3\], got \[2\]$'),
    ],
)
def test_bad_cross_kernels(change: dict, error: type[Exception], message: str) -> None:
    arguments = dict(x=torch.ones(1, 3, 4, 5), wide=torch.ones(3, 5, 3), tall=torch.ones(3, 5, 3))
    with pytest.raises(error, match=message):
        cross_conv2d(**{**arguments, **change})
