"""Effective receptive fields: convolutions with a field known by hand, squares, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsw.analysis import effective_receptive_field
from mmsw.analysis.receptive_field import (
    calibrate_norms,
    closed_scales,
    high_contribution_squares,
    log_scores,
    open_scales,
)
from mmsw.analysis.receptive_field.area import SHARES

Maps = tuple[Tensor, ...]


class Function(nn.Module):
    """A network that is one function."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


def ones(**settings: int) -> nn.Conv2d:
    """A convolution of one channel whose weights are all one."""
    convolution = nn.Conv2d(1, 1, bias=False, dtype=torch.float64, **settings)
    nn.init.ones_(convolution.weight)
    return convolution


def powers(base: list[int], exponent: int, gap: int = 1) -> list[int]:
    """Coefficients of a polynomial to a power; ``gap - 1`` zeros between those of the base."""
    spread = [0] * (gap * (len(base) - 1) + 1)
    spread[::gap] = base
    result = [1]
    for _ in range(exponent):
        result = np.convolve(result, spread).tolist()
    return result


def placed(line: list[int], middle: int, side: int) -> np.ndarray:
    """A line of odd length around a position, cut off at the edges."""
    whole = np.zeros(side)
    for offset, value in enumerate(line, middle - len(line) // 2):
        if 0 <= offset < side:
            whole[offset] = value
    return whole


@pytest.mark.parametrize(('height', 'width'), [(15, 15), (16, 16), (15, 18), (7, 8)])
@pytest.mark.parametrize('depth', [1, 2, 3])
def test_stack_of_all_ones_is_a_power_of_a_trinomial(height: int, width: int, depth: int) -> None:
    """``(1 + x + x^2)^K`` along each axis: 1 2 3 2 1 for two layers of 3 x 3."""
    net = nn.Sequential(*(ones(kernel_size=3) for _ in range(depth)))
    image = torch.ones(1, height, width, dtype=torch.float64)
    line = powers([1, 1, 1], depth)
    # without padding, output i sees inputs i to i + 2K, so its middle is i + K
    rows, columns = (
        placed(line, (side - 2 * depth) // 2 + depth, side) for side in (height, width)
    )
    field, _ = effective_receptive_field(net, [image])
    assert field.dtype == np.float64
    assert np.array_equal(field, np.outer(rows, columns))


def test_borders_take_away_the_paths_that_leave_the_map() -> None:
    """With padding, on a map of 3, two layers: paths through the padding do not count."""
    net = nn.Sequential(ones(kernel_size=3, padding=1), ones(kernel_size=3, padding=1))
    field, _ = effective_receptive_field(net, [torch.ones(1, 3, 3)])
    assert np.array_equal(field, np.outer([2, 3, 2], [2, 3, 2]))


@pytest.mark.parametrize('side', [31, 32])
def test_dilation_and_stride(side: int) -> None:
    """3 x 3 dilated by 4, then 3 x 3 of stride 2, padded: powers with gaps around ``2 * (h // 2)``.

    Behind a stride of 2, a step of a later layer is two pixels.
    """
    net = nn.Sequential(
        ones(kernel_size=3, padding=4, dilation=4),
        ones(kernel_size=3, padding=1, stride=2),
        ones(kernel_size=3, padding=1),
    )
    line = np.convolve(powers([1, 1, 1], 1, gap=4), powers([1, 1, 1], 1))
    line = np.convolve(line, powers([1, 1, 1], 1, gap=2)).tolist()
    expected = placed(line, 2 * ((side + 1) // 2 // 2), side)
    field, _ = effective_receptive_field(net, [torch.ones(1, side, side)])
    assert np.array_equal(field, np.outer(expected, expected))


@pytest.mark.parametrize(('side', 'first', 'last'), [(24, 12, 15), (28, 12, 15), (20, 8, 11)])
def test_patches_see_their_own_pixels(side: int, first: int, last: int) -> None:
    """Patches of 4: map 6 of 24 pixels has its centre at 3, pixels 12 to 15; 7 has 3, 5 has 2."""
    field, ratios = effective_receptive_field(
        ones(kernel_size=4, stride=4), [torch.ones(1, side, side)]
    )
    expected = np.zeros((side, side))
    expected[first : last + 1, first : last + 1] = 1
    assert np.array_equal(field, expected)
    assert list(ratios) == list(SHARES)


def test_random_kernels_compose() -> None:
    """The field of two convolutions is the kernel that ``conv_transpose`` makes of both."""
    generator = torch.Generator().manual_seed(1)
    first, second = (
        torch.rand(shape, generator=generator, dtype=torch.float64)
        for shape in ((4, 3, 5, 3), (2, 4, 3, 5))
    )
    net = Function(lambda x: F.conv2d(F.conv2d(x, first), second))
    images = torch.rand(2, 3, 13, 12, generator=generator, dtype=torch.float64)
    field, _ = effective_receptive_field(net, images)
    one = torch.zeros(1, 2, 7, 6, dtype=torch.float64)  # of the map, which is 7 x 6
    one[:, :, 3, 3] = 1
    expected = F.conv_transpose2d(F.conv_transpose2d(one, second), first).sum((0, 1))
    np.testing.assert_allclose(field, expected.numpy(), rtol=1e-12)


def test_signs_and_rectified_outputs() -> None:
    """One 1 x 1 output of each sign: ``+-(3 a - b)``, so the positive output is followed."""
    weight = torch.tensor([[3.0, -1.0], [-3.0, 1.0]]).view(2, 2, 1, 1)
    net = Function(lambda x: F.conv2d(x, weight))
    image = torch.tensor([1.0, 1.0]).view(2, 1, 1)
    assert effective_receptive_field(net, [image]).map.tolist() == [[3.0]]
    assert effective_receptive_field(net, [image], part='absolute').map.tolist() == [[4.0]]
    # of image 0 the first output counts, of image 1 the second, which falls by b and rises by a
    images = torch.stack([image, -image])
    assert effective_receptive_field(net, images).map.tolist() == [[2.0]]
    assert effective_receptive_field(net, [images]).map.tolist() == [[2.0]]  # as one batch
    with pytest.raises(ValueError, match='zero at every pixel'):  # both outputs, which cancel
        effective_receptive_field(net, [image], rectify=False)


def test_images_are_averaged() -> None:
    net = Function(lambda x: x**2)
    images = [torch.full((1, 3, 3), value) for value in (1.0, 3.0)]
    assert effective_receptive_field(net, images).map[1, 1] == (2 * 1 + 2 * 3) / 2


@pytest.mark.parametrize(
    ('outputs', 'output', 'factor'),
    [
        (lambda x: 2 * x, -1, 2),
        (lambda x: (x, 3 * x), -1, 3),
        (lambda x: [x, 3 * x], 0, 1),
        (lambda x: {'fine': x, 'coarse': 5 * x}, -1, 5),
        (lambda x: {'fine': x, 'coarse': 5 * x}, 'fine', 1),
        (lambda x: {0: 7 * x, 1: x}, 0, 7),
    ],
)
def test_choice_of_the_map(outputs: Callable, output: int | str, factor: int) -> None:
    field, _ = effective_receptive_field(Function(outputs), [torch.ones(1, 2, 2)], output)
    assert field.tolist() == [[0, 0], [0, factor]]


def test_the_network_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    with torch.no_grad():
        first = effective_receptive_field(net, torch.rand(2, 3, 9, 9).double()).map
    with torch.inference_mode():
        image = torch.rand(1, 3, 9, 9)
        assert effective_receptive_field(net, image).map.any()
    assert first.any()
    assert [module.training for module in net.modules()] == [True, True, False, True]
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True]
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    torch.set_rng_state(random)
    with pytest.raises(ValueError, match='no images'):
        effective_receptive_field(net, [])
    assert net.training
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True]


def test_no_gradient_of_a_parameter_is_computed() -> None:
    """Such as a layer of one's own would compute because a parameter asks for it."""
    asked = []

    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            return x * weight.detach()

        @staticmethod
        def backward(ctx, gradient):
            asked.append(ctx.needs_input_grad)
            return gradient, None

    net = nn.Conv2d(1, 1, 1)
    net.forward = lambda x: Scale.apply(x, net.weight)
    effective_receptive_field(net, [torch.full((1, 2, 2), net.weight.sign().item())])
    assert asked == [(True, False)]


@pytest.mark.parametrize(
    ('function', 'image', 'settings', 'message'),
    [
        (lambda x: x, torch.ones(2, 2), {}, r'image 0 must be a tensor \[C, H, W\]'),
        (lambda x: x, 'photo.jpg', {}, 'image 0 must be a tensor .* got str'),
        (lambda x: x, torch.ones(1, 0, 2), {}, r'with pixels, got \[1, 0, 2\]'),
        (lambda x: (x, x), torch.ones(1, 2, 2), dict(output=2), 'no output 2; .* tuple with 2'),
        (lambda x: {'a': x}, torch.ones(1, 2, 2), dict(output='b'), r"no output 'b'.*\['a'\]"),
        (lambda x: x.mean((2, 3)), torch.ones(1, 2, 2), {}, r'must be a map \[B, c, h, w\], got'),
        (lambda x: x, torch.ones(1, 2, 2), dict(part='negative'), "one of .* got 'negative'"),
        (lambda x: x[:, :, ::2], torch.ones(1, 4, 4), dict(least_map=3), '2 x 4, at least 3 x 3'),
        (lambda x: x[:, :, :0], torch.ones(1, 4, 4), {}, 'map of 0 x 4'),
        (lambda x: x.detach(), torch.ones(1, 2, 2), {}, 'does not depend on the image in a way'),
        (lambda x: 0 * x, torch.ones(1, 2, 2), {}, r'zero at every pixel of all images \(1\)'),
        (lambda x: -x, torch.ones(1, 2, 2), {}, 'no channel at the centre is above zero'),
        (lambda x: x * float('inf'), torch.ones(1, 2, 2), {}, 'for image 0 is not finite'),
        (lambda x: x.sqrt(), torch.zeros(1, 2, 2), dict(rectify=False), 'is not finite'),
    ],
)
def test_what_is_refused(function: Callable, image: object, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(Function(function), [image], **settings)


def test_images_of_two_sizes_are_refused() -> None:
    images = [torch.ones(1, 4, 4), torch.ones(1, 4, 5)]
    with pytest.raises(ValueError, match=r'image 1 has \[4, 5\] pixels, those before it \[4, 4\]'):
        effective_receptive_field(Function(lambda x: x), images)


@pytest.mark.parametrize('side', [7, 8])
def test_squares_of_an_even_field(side: int) -> None:
    """Of ones, a square of side s holds s^2: the published ratio is the share, rounded up."""
    for share in (Fraction(1, 100), Fraction(1, 4), Fraction(1, 2), Fraction(99, 100), Fraction(1)):
        needed = next(k for k in range(side) if min(2 * k + 1, side) ** 2 >= share * side**2)
        square = high_contribution_squares(np.ones((side, side)), [float(share)])[float(share)]
        assert square.side == 2 * needed + 1
        assert square.area_ratio == min(2 * needed + 1, side) ** 2 / side**2


def literal_square(scores: np.ndarray, share: float) -> tuple[int, float]:
    """RepLKNet's definition, square by square."""
    height, width = scores.shape
    for k in range(max(height, width)):
        rows = slice(max(height // 2 - k, 0), height // 2 + k + 1)
        columns = slice(max(width // 2 - k, 0), width // 2 + k + 1)
        inside = scores[rows, columns]
        if inside.sum() >= share * scores.sum():
            return 2 * k + 1, inside.size / scores.size
    raise AssertionError


@pytest.mark.parametrize('shape', [(1, 1), (2, 2), (9, 9), (10, 10), (9, 14), (14, 9), (1, 6)])
def test_squares_agree_with_the_definition(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(sum(shape)).gamma(0.3, size=shape)
    shares = (0.01, 0.2, 0.3, 0.5, 0.9, 0.97)
    found = high_contribution_squares(scores, shares)
    assert {share: tuple(square) for share, square in found.items()} == {
        share: literal_square(scores, share) for share in shares
    }
    assert high_contribution_squares(scores, [1])[1].area_ratio <= 1


def test_squares_do_not_depend_on_a_factor_but_those_of_logarithms_do() -> None:
    scores = np.outer(*2 * [np.exp(-np.abs(np.arange(-20.0, 21)) / 3)])
    small, large = (high_contribution_squares(factor * scores) for factor in (1e-6, 1e6))
    assert small == large
    assert high_contribution_squares(log_scores(1e-6 * scores)) == small
    logarithmic = high_contribution_squares(log_scores(1e6 * scores))
    assert logarithmic[0.5].side > 2 * large[0.5].side
    assert log_scores(np.array([0.0, 9.0, 99.0])).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ('scores', 'shares', 'message'),
    [
        (np.ones(3), SHARES, r'map \[H, W\], got the shape \[3\]'),
        (np.ones((0, 3)), SHARES, r'got the shape \[0, 3\]'),
        (np.zeros((3, 3)), SHARES, 'not all zero'),
        (-np.ones((3, 3)), SHARES, 'values from -1.0 to -1.0'),
        (np.full((3, 3), np.nan), SHARES, 'finite'),
        (np.ones((3, 3)), [0.5, 0], 'at most 1, got 0'),
        (np.ones((3, 3)), [20], 'at most 1, got 20'),
    ],
)
def test_squares_refused(scores: np.ndarray, shares: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        high_contribution_squares(scores, shares)


class Branch(nn.Module):
    """A residual block with a layer scale."""

    def __init__(self, scale: float, shape: tuple[int, ...] = (4,)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 5, padding=2)
        self.norm = nn.BatchNorm2d(4)
        self.gamma = nn.Parameter(torch.full(shape, scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(x)) * self.gamma.view(1, -1, 1, 1)


def test_closed_branches_hide_their_kernels() -> None:
    net = nn.Sequential(Branch(1e-6), Branch(1e-6, (4, 1, 1)), Branch(1.0))
    net[2].gamma.requires_grad_(False)
    nn.init.zeros_(net[2].norm.weight)
    image = torch.rand(4, 21, 21)
    assert list(closed_scales(net)) == ['0.gamma', '1.gamma', '2.norm.weight']
    field, _ = effective_receptive_field(net, [image])
    squares = high_contribution_squares(field, [0.99])
    assert squares[0.99].side == 1
    assert open_scales(net) == 3
    assert closed_scales(net) == {}
    assert net[0].gamma.requires_grad
    field, _ = effective_receptive_field(net, [image])
    assert high_contribution_squares(field, [0.99])[0.99].side > 5


def test_what_is_no_closed_scale() -> None:
    class Response(nn.Module):  # GRN: x + gamma * n(x) + beta
        def __init__(self) -> None:
            super().__init__()
            self.gamma, self.beta = (nn.Parameter(torch.zeros(4)) for _ in range(2))

    net = nn.ModuleDict(dict(response=Response(), norm=nn.LayerNorm(4), conv=nn.Conv2d(4, 1, 1)))
    nn.init.zeros_(net['conv'].weight)
    net.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
    assert closed_scales(net) == {}


def test_batch_norms_get_the_statistics_of_the_images() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.9)).eval()
    net[0].train()
    net.append(nn.BatchNorm2d(4, affine=False))
    batches = [torch.rand(1, 3, 9, 9) + number for number in range(3)]
    assert calibrate_norms(net, iter(batches)) == 2
    maps = [net[0](batch).detach() for batch in batches]
    for found, wanted in (
        (net[1].running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)),
        (net[1].running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)),
        (net[3].running_mean, torch.zeros(4)),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    # of a map that nothing was dropped from
    assert torch.all((net[3].running_var - 1).abs() < 0.05)
    assert [module.training for module in net] == [True, False, False, True]
    assert net[1].momentum == 0.3
    assert calibrate_norms(nn.Conv2d(3, 4, 3), iter(batches)) == 0
