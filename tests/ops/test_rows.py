"""Sums over the rows of several maps, and maps that are sums of them."""

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from shift_wise_literal import relative_error
from torch import Tensor

from mmsw.ops.backends import cpp_backend, torch_backend

ROUNDING = {
    torch.float64: 1e-13,
    torch.float32: 3e-7,
    torch.float16: 6e-4,
    torch.bfloat16: 5e-3,
}
# shorter than a vector, around one, around the stretches that are summed and mixed at once
POSITIONS = [1, 3, 7, 8, 17, 49, 511, 1000, 1025, 2100, 16384]
# maps, outputs and their channels, of 5 at most
CHANNELS = [([5], [5]), ([5, 3], [2, 5]), ([5, 0, 4], [5]), ([5, 3, 3, 3], [5]),
            ([5, 5, 3, 3, 3], [5, 3, 3, 3, 0])]  # fmt: skip
needs_cpp = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)


@pytest.fixture
def module(every_backend: str) -> ModuleType:
    """A backend that has the functions."""
    return {'torch': torch_backend, 'cpp': cpp_backend}[every_backend]


def draw(channels: list[int], positions: int, dtype: torch.dtype, batch: int = 2) -> list[Tensor]:
    """Maps that depend on each other, each with a mean and a deviation of its own."""
    common = torch.randn(batch, channels[0], positions, dtype=torch.float64)
    return [
        (common[:, :count] + (i + 1) * torch.randn(batch, count, positions) + i).to(dtype)
        for i, count in enumerate(channels)
    ]


def padded(maps: list[Tensor]) -> Tensor:
    """All maps in float64, zero where one has no channel: ``[n, B, C, P]``."""
    channels = maps[0].shape[1]
    return torch.stack([F.pad(m.double(), (0, 0, 0, channels - m.shape[1])) for m in maps])


def exact_moments(maps: list[Tensor]) -> list[Tensor]:
    wide = padded(maps)
    mean = wide.mean(3)
    centred = wide - mean[..., None]
    return [mean, torch.einsum('ibcp,jbcp->ijbc', centred, centred) / wide.shape[3]]


def exact_products(grad: Tensor, maps: list[Tensor], mean: Tensor) -> Tensor:
    inside = padded([torch.ones_like(m) for m in maps])
    centred = (padded(maps) - mean[..., None]) * inside
    centred = torch.cat([centred, torch.ones_like(centred[:1])])
    return torch.einsum('bcp,ibcp->ibc', grad.double(), centred)


def exact_sums(
    maps: list[Tensor], mean: Tensor, factors: Tensor, channels: list[int]
) -> list[Tensor]:
    inside = padded([torch.ones_like(m) for m in maps])
    centred = (padded(maps) - mean[..., None]) * inside
    mixed = torch.einsum('jibc,ibcp->jbcp', factors[:, :-1], centred) + factors[:, -1, ..., None]
    return [out[:, :count] for out, count in zip(mixed, channels, strict=True)]


def assert_close(ours: Tensor, exact: Tensor, bound: Tensor) -> None:
    assert ours.dtype == torch.float64
    assert ours.shape == exact.shape
    assert bool(((ours - exact).abs() <= bound + 1e-14).all())


def assert_exact(module: ModuleType, maps: list[Tensor], channels: list[int]) -> None:
    """All three functions, with a gradient and factors that are drawn here."""
    dtype, (batch, count, positions) = maps[0].dtype, maps[0].shape
    wide = 1e-13 if dtype == torch.float64 else 1e-6
    mean, covariance = found = module.row_moments(maps)
    expected = exact_moments(maps)
    deviation = expected[1].diagonal().permute(2, 0, 1).sqrt()
    size = padded(maps).square().mean(3).sqrt(), deviation[:, None] * deviation
    for ours, exact, most in zip(found, expected, size, strict=True):
        assert_close(ours, exact, wide * most)
    assert torch.equal(covariance, covariance.transpose(0, 1))
    grad = torch.randn(batch, count, positions).to(dtype)
    # beside the size of what is added up: the sums themselves may cancel
    most = exact_products(grad.abs(), [m.abs() for m in maps], -mean.abs())
    exact = exact_products(grad, maps, mean)
    assert_close(module.row_products(grad, maps, mean), exact, wide * most)
    factors = torch.randn(len(channels), len(maps) + 1, batch, count, dtype=torch.float64)
    outs = module.row_sums(maps, mean, factors, channels)
    for out, exact in zip(outs, exact_sums(maps, mean, factors, channels), strict=True):
        assert out.dtype == dtype
        assert out.is_contiguous()
        assert out.shape == exact.shape
        assert out.numel() == 0 or relative_error(out, exact) < ROUNDING[dtype]


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('channels', CHANNELS, ids=str)
def test_every_backend_is_exact(module: ModuleType, channels: tuple, dtype: torch.dtype) -> None:
    for positions in (9, 50):
        assert_exact(module, draw(channels[0], positions, dtype), channels[1])


@needs_cpp
@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
def test_every_instruction_set_is_exact(instructions: str, dtype: torch.dtype) -> None:
    for positions in POSITIONS:
        for maps, outs in CHANNELS if positions < 1000 else CHANNELS[-1:]:
            assert_exact(cpp_backend, draw(maps, positions, dtype), outs)


@needs_cpp
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('positions', [49, 1000, 16384])
def test_a_mean_far_above_the_deviation_costs_no_digits(dtype: torch.dtype, positions: int) -> None:
    maps = [(m + 1000 * (i + 1)).to(dtype) for i, m in enumerate(draw([3, 3], positions, dtype))]
    maps[0][0, 0, positions // 2 :] += 5000  # the first half tells nothing about the second
    maps[0][1, 0, :9] = 0
    mean, covariance = cpp_backend.row_moments(maps)
    exact_mean, exact = exact_moments(maps)
    deviation = exact.diagonal().permute(2, 0, 1).sqrt()
    assert float(((mean - exact_mean).abs() / deviation).max()) < 1e-6
    assert float(((covariance - exact).abs() / (deviation[:, None] * deviation)).max()) < 1e-6
    grad = torch.randn_like(maps[0])
    products = cpp_backend.row_products(grad, maps, exact_mean)
    most = exact_products(grad, maps, exact_mean)[:2].abs().max()
    assert float((products - exact_products(grad, maps, exact_mean)).abs().max() / most) < 1e-6


@needs_cpp
def test_the_start_of_a_long_row_may_lie_far_from_the_rest() -> None:
    row = torch.randn(1, 1, 1 << 18)
    row[..., 1024:] += 5000
    _, covariance = cpp_backend.row_moments([row])
    assert relative_error(covariance, exact_moments([row])[1]) < 4e-7


@needs_cpp
@pytest.mark.parametrize('value', [0.0, 0.1, -1e4])
def test_a_constant_row_has_no_variance(value: float) -> None:
    row = torch.full((1, 2, 1100), value)
    mean, covariance = cpp_backend.row_moments([row])
    assert torch.equal(mean[0], row[..., 0].double())
    assert not covariance.any()


@needs_cpp
def test_maps_may_be_slices() -> None:
    wide = torch.randn(3, 9, 70)
    turned = wide.mT.contiguous()
    maps = [wide[:2, 2:7, 3:43], wide[1:, :3, 5:45], wide[::2, 5:8, :40], turned[1:, :40, 2:4].mT]
    grad = wide[::2, 4:, 1:41]
    same, same_grad = [m.contiguous() for m in maps], grad.contiguous()
    factors = torch.randn(2, 5, 2, 5, dtype=torch.float64).transpose(0, 2)
    results = [
        [
            *cpp_backend.row_moments(some),
            *cpp_backend.row_sums(some, factors[0, :4], factors, [5, 2]),
            cpp_backend.row_products(given, some, factors[0, :4]),
        ]
        for some, given in ((maps, grad), (same, same_grad))
    ]
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)
    one = wide[:, :, :1].transpose(1, 2).contiguous().transpose(1, 2)  # strides of one position
    assert torch.equal(cpp_backend.row_moments([one])[0][0], one[..., 0].double())


@needs_cpp
@pytest.mark.parametrize('bad', [torch.inf, torch.nan])
def test_what_is_no_number_stays_in_its_row(bad: float) -> None:
    maps = draw([3, 2], 40, torch.float32)
    maps[1][0, 1, 20] = bad
    mean, covariance = cpp_backend.row_moments(maps)
    factors = torch.ones(1, 3, 2, 3, dtype=torch.float64)
    (out,) = cpp_backend.row_sums(maps, 0 * factors[0, :2], factors, [3])
    hit = torch.zeros(2, 3, dtype=torch.bool)
    hit[0, 1] = True
    assert torch.equal(mean.isfinite(), ~torch.stack([hit & False, hit]))
    assert torch.equal(covariance[0, 0].isfinite(), ~(hit & False))
    assert torch.equal(covariance[1].isfinite(), ~torch.stack([hit, hit]))
    assert (~out.isfinite()).nonzero().tolist() == [[0, 1, 20]]


@needs_cpp
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_threads_and_repetition_change_no_bit(dtype: torch.dtype) -> None:
    maps, grad = draw([40, 30, 30], 1234, dtype), draw([40], 1234, dtype)[0]
    factors = torch.randn(2, 4, 2, 40, dtype=torch.float64)
    mean = factors[0, :3]

    def run() -> list[Tensor]:
        sums = cpp_backend.row_sums(maps, mean, factors, [40, 30])
        return [
            *cpp_backend.row_moments(maps),
            cpp_backend.row_products(grad, maps, mean),
            *sums,
        ]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = run()
        torch.set_num_threads(3)
        for _ in range(3):
            for ours, expected in zip(run(), one, strict=True):
                assert torch.equal(ours, expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(('batch', 'channels'), [(0, [3, 2]), (2, [0, 0]), (2, [3, 0])], ids=str)
def test_empty_maps(module: ModuleType, batch: int, channels: list[int]) -> None:
    maps, most = [torch.randn(batch, count, 5) for count in channels], channels[0]
    mean, covariance = module.row_moments(maps)
    assert mean.shape == (2, batch, most)
    assert covariance.shape == (2, 2, batch, most)
    assert module.row_products(maps[0], maps, mean).shape == (3, batch, most)
    factors = torch.randn(2, 3, batch, most, dtype=torch.float64)
    outs = module.row_sums(maps, mean, factors, [most, 0])
    assert [tuple(out.shape) for out in outs] == [(batch, most, 5), (batch, 0, 5)]


def test_the_plain_form_is_differentiable() -> None:
    maps = [m.requires_grad_() for m in draw([2, 1], 3, torch.float64, batch=1)]
    grad = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    mean = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(2, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    for function, inputs in (
        (lambda *m: torch_backend.row_moments(m), maps),
        (lambda g, c, *m: torch_backend.row_products(g, m, c), [grad, mean, *maps]),
        (lambda f, c, *m: tuple(torch_backend.row_sums(m, c, f, [1, 2])), [factors, mean, *maps]),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@needs_cpp
def test_opcheck() -> None:
    maps = draw([3, 2], 7, torch.bfloat16)
    mean = torch.zeros(2, 2, 3, dtype=torch.float64)
    factors = torch.zeros(2, 3, 2, 3, dtype=torch.float64)
    library = torch.ops.mmsw_cpp
    torch.library.opcheck(library.row_moments.default, (maps,))
    torch.library.opcheck(library.row_products.default, (maps[0], maps, mean))
    torch.library.opcheck(library.row_sums.default, (maps, mean, factors, [3, 1]))


@needs_cpp
def test_a_derivative_is_refused_rather_than_wrong() -> None:
    maps = [m.requires_grad_() for m in draw([3, 2], 7, torch.float32)]
    mean, _ = torch.ops.mmsw_cpp.row_moments(maps)
    with pytest.raises(RuntimeError, match=r'row_moments.* is not implemented'):
        mean.sum().backward()


def arguments() -> dict:
    return dict(
        grad=torch.randn(2, 3, 5),
        maps=[torch.randn(2, 3, 5), torch.randn(2, 2, 5)],
        mean=torch.zeros(2, 2, 3, dtype=torch.float64),
        factors=torch.zeros(2, 3, 2, 3, dtype=torch.float64),
        channels=[3, 2],
    )


def run_all(grad: Tensor, maps: list, mean: Tensor, factors: Tensor, channels: list) -> None:
    torch.ops.mmsw_cpp.row_products(grad, maps, mean)
    torch.ops.mmsw_cpp.row_sums(maps, mean, factors, channels)


def two_maps(*sizes: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, 3, 5), torch.zeros(sizes, dtype=dtype)]


F64 = torch.float64
BAD = [
    (dict(maps=[]), ValueError, 'maps must be 1 to 5, got 0'),
    (dict(maps=two_maps(2, 3, 5) * 3), ValueError, 'maps must be 1 to 5, got 6'),
    (dict(maps=two_maps(2, 3)), ValueError, r'maps\[1\] must be \[B, C, P\] with P >= 1 and'),
    (
        dict(maps=two_maps(2, 2, 0)),
        ValueError,
        r'maps\[1\] must be .* got \[2, 2, 0\] with',
    ),
    (
        dict(maps=[two_maps(2, 5, 3)[1].mT]),
        ValueError,
        r'maps\[0\] must be .* contiguous positions, got \[2, 3, 5\] with strides \[15, 1, 3\]',
    ),
    (
        dict(maps=two_maps(2, 4, 5)),
        ValueError,
        r'maps\[1\] must have the samples and positions of maps\[0\], \[2, 3, 5\], and no more',
    ),
    (dict(maps=two_maps(1, 2, 5)), ValueError, r'maps\[1\] must have the .*, got \[1, 2, 5\]'),
    (dict(maps=two_maps(2, 2, 6)), ValueError, r'maps\[1\] must have the .*, got \[2, 2, 6\]'),
    (dict(maps=two_maps(2, 2, 5, dtype=F64)), TypeError, r'maps\[1\] must hold Float as the map'),
    (dict(maps=[torch.zeros(2, 3, 5).long()]), TypeError, r'maps\[0\] must hold float32, float64'),
    (dict(grad=torch.zeros(2, 2, 5)), ValueError, r'grad must be \[2, 3, 5\], got \[2, 2, 5\]'),
    (
        dict(grad=torch.zeros(2, 3, 5).half()),
        TypeError,
        'grad must hold Float as the map does',
    ),
    (
        dict(grad=torch.zeros(2, 5, 3).mT),
        ValueError,
        'grad must have contiguous positions',
    ),
    (dict(mean=torch.zeros(2, 2, 3)), TypeError, 'mean must hold float64, got Float'),
    (
        dict(mean=torch.zeros(1, 2, 3, dtype=F64)),
        ValueError,
        r'mean must be \[2, 2, 3\], got \[1, 2, 3\]',
    ),
    (
        dict(factors=torch.zeros(2, 2, 2, 3, dtype=F64)),
        ValueError,
        r'factors must be \[2, 3, 2, 3\], got \[2, 2, 2, 3\]',
    ),
    (dict(channels=[3]), ValueError, r'factors must be \[1, 3, 2, 3\], got \[2, 3, 2, 3\]'),
    (dict(channels=[3, 4]), ValueError, r'channels must be from 0 to 3, got \[3, 4\]'),
    (dict(channels=[-1, 3]), ValueError, r'channels must be from 0 to 3, got \[-1, 3\]'),
    (dict(channels=[]), ValueError, 'channels must name 1 to 5 maps, got 0'),
]


@needs_cpp
@pytest.mark.parametrize(('change', 'error', 'message'), BAD)
def test_what_does_not_fit_is_refused(change: dict, error: type, message: str) -> None:
    run_all(**arguments())
    with pytest.raises(error, match=f'^{message}'):
        run_all(**arguments() | change)
