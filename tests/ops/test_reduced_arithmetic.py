"""Arms in float32 with fewer multiplications: how exact, for which maps, and when not."""

from collections.abc import Iterator

import pytest
import torch
from shift_wise_literal import relative_error
from torch import Tensor

from mmsw.ops import ShiftPattern, cross_conv2d, shift_wise_conv2d
from mmsw.ops.backends import cpp_backend

pytestmark = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)

# The largest error, of the largest output. 1.6e-6 was measured where the reduced form wins.
BOUND = 2e-6
# Few taps meet a tiny map: 2.4e-6 was measured. The reduced form does not win there.
BOUND_OF_TINY = 4e-6
# square and not, odd, narrower than a tile, lower than an arm, around whole vectors of tiles
MAPS = [(1, 1), (2, 70), (70, 2), (7, 7), (5, 130), (33, 47), (64, 64), (31, 101), (128, 20)]


@pytest.fixture(autouse=True)
def always() -> Iterator[None]:
    cpp_backend.set_arithmetic('always')
    yield
    cpp_backend.set_arithmetic('reduced')


def forward(x: Tensor, weight: Tensor, pattern: ShiftPattern) -> tuple[Tensor, ...]:
    return shift_wise_conv2d(x, weight, pattern, backend='cpp')


def forward_by(arithmetic: str, *args) -> tuple[Tensor, ...]:
    cpp_backend.set_arithmetic(arithmetic)
    return forward(*args)


def random_weight(pattern: ShiftPattern, kept: float = 0.7) -> Tensor:
    side, groups = pattern.small_kernel, pattern.channels * pattern.num_groups
    return torch.randn(groups, 1, side, side) * (torch.rand(groups, 1, 1, 1) < kept)


@pytest.mark.parametrize('big', [51, 49, 47, 13])
@pytest.mark.parametrize('side', [3, 5])
def test_every_size_is_as_exact_as_stated(instructions: str, big: int, side: int) -> None:
    pattern = ShiftPattern.draw(big, side, 2, 1)
    for height, width in MAPS:
        weight = random_weight(pattern).requires_grad_()
        x = torch.randn(1, 2, height, width, requires_grad=True)
        exact_x, exact_weight = (t.detach().double().requires_grad_() for t in (x, weight))
        ours, exact = forward(x, weight, pattern), forward(exact_x, exact_weight, pattern)
        grads = [torch.randn_like(out) for out in ours]
        torch.autograd.backward(ours, grads)
        torch.autograd.backward(exact, [grad.double() for grad in grads])
        for found, expected in zip((*ours, x.grad), (*exact, exact_x.grad), strict=True):
            bound = BOUND if min(height, width) >= 16 else BOUND_OF_TINY
            assert relative_error(found, expected) < bound, (height, width)


def test_it_is_another_arithmetic_where_it_wins_and_only_there() -> None:
    large, small = ShiftPattern.draw(51, 3, 2, 1), ShiftPattern.draw(13, 3, 2, 1)
    x, weight = torch.randn(1, 2, 96, 96), random_weight(large, 1)
    for ours, other in zip(
        forward_by('reduced', x, weight, large)[:2],
        forward_by('direct', x, weight, large)[:2],
        strict=True,
    ):
        assert 0 < relative_error(ours, other) < BOUND
    x, weight = x[:, :, :16, :16], random_weight(small, 1)
    for ours, other in zip(
        forward_by('reduced', x, weight, small), forward_by('direct', x, weight, small), strict=True
    ):
        assert torch.equal(ours, other)


@pytest.mark.parametrize('taps', [53, 49, 17, 5, 1])
@pytest.mark.parametrize('side', [3, 5])
def test_folded_arms_of_any_length(taps: int, side: int) -> None:
    x = torch.randn(2, 3, 40, 75)
    wide, tall, bias = torch.randn(3, taps, side), torch.randn(3, taps + 2, side), torch.randn(3)
    wide[:, taps // 3 : taps // 2] = 0
    ours = cross_conv2d(x, wide, tall, bias, backend='cpp')
    exact = cross_conv2d(*(t.double() for t in (x, wide, tall, bias)), backend='cpp')
    assert relative_error(ours, exact) < BOUND


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 1e30])
def test_maps_that_are_not_moderate_run_directly(value: float) -> None:
    pattern = ShiftPattern.draw(51, 3, 3, 1)
    x, weight = torch.randn(2, 3, 40, 60), random_weight(pattern, 0.5)
    x[0, 1, 20, 33] = value
    ours = forward(x, weight, pattern)
    direct = forward_by('direct', x, weight, pattern)
    for found, expected in zip(ours, direct, strict=True):
        assert torch.equal(found[0, 1].nan_to_num(7), expected[0, 1].nan_to_num(7))
        assert found[1].isfinite().all()
        assert found[0, ::2].isfinite().all()


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e20])
def test_weights_that_are_not_moderate_run_directly(value: float) -> None:
    pattern = ShiftPattern.draw(51, 3, 3, 1)
    x, weight = torch.randn(1, 3, 40, 60), random_weight(pattern, 0.5)
    weight[pattern.num_groups + 4, 0, 1, 1] = value
    ours = forward(x, weight, pattern)
    direct = forward_by('direct', x, weight, pattern)
    for found, expected in zip(ours, direct, strict=True):
        assert torch.equal(found[:, 1].nan_to_num(7), expected[:, 1].nan_to_num(7))
        assert found[:, ::2].isfinite().all()


def test_maps_after_one_that_was_larger_or_not_finite_are_exact() -> None:
    """Zeros around a map stay zeros, whatever was in the memory before."""
    pattern = ShiftPattern.draw(49, 3, 1, 1)
    weight = random_weight(pattern, 1)
    x = torch.randn(4, 1, 37, 37)
    alone = forward(x[3:], weight, pattern)
    x[1] = float('inf')
    x[2] = 1e12
    for found, expected in zip(forward(x, weight, pattern), alone, strict=True):
        assert torch.equal(found[3:], expected)


@pytest.mark.parametrize('width', [7, 13, 20, 25])
def test_a_large_sample_does_not_blur_the_small_ones_of_its_batch(width: int) -> None:
    """Small maps of a batch lie side by side in one frame; no tile may reach into two of them."""
    pattern = ShiftPattern.draw(51, 3, 1, 1)
    x, weight = torch.randn(8, 1, 25, width), random_weight(pattern, 1)
    x[1::2] *= 1e6
    exact = forward(x.double(), weight.double(), pattern)
    for found, expected in zip(forward(x, weight, pattern), exact, strict=True):
        assert relative_error(found[::2], expected[::2]) < BOUND_OF_TINY


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_rounded_once(dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(49, 3, 2, 1)
    x, weight = torch.randn(2, 2, 37, 50).to(dtype), random_weight(pattern).to(dtype)
    exact = forward(x.double(), weight.double(), pattern)
    for found, expected in zip(forward(x, weight, pattern), exact, strict=True):
        assert found.dtype == dtype
        bound = torch.finfo(dtype).eps / 2 * expected.abs() + BOUND * expected.abs().max()
        assert ((found.double() - expected).abs() <= bound).all()


def test_the_number_of_threads_changes_nothing() -> None:
    pattern = ShiftPattern.draw(47, 3, 5, 1)
    x, weight = torch.randn(3, 5, 32, 50), random_weight(pattern)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = forward(x, weight, pattern)
        torch.set_num_threads(3)
        many = forward(x, weight, pattern)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, one, many))


def test_an_unknown_arithmetic_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^arithmetic 'toom' is unknown; choose 'reduced'"):
        cpp_backend.set_arithmetic('toom')
    assert cpp_backend.arithmetic() == 'always'


@pytest.mark.parametrize(('value', 'found'), [('direct', 'direct'), ('reduced', 'reduced')])
def test_the_environment_chooses(monkeypatch, value: str, found: str) -> None:
    monkeypatch.setenv('MMSW_CPP_ARITHMETIC', value)
    cpp_backend.read_arithmetic()
    assert cpp_backend.arithmetic() == found


def test_an_unknown_value_in_the_environment_is_named(monkeypatch) -> None:
    monkeypatch.setenv('MMSW_CPP_ARITHMETIC', 'toom')
    with pytest.warns(UserWarning, match="^MMSW_CPP_ARITHMETIC='toom' is unknown; choose 'reduc"):
        cpp_backend.read_arithmetic()
    assert cpp_backend.arithmetic() == 'always'
