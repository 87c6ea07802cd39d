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


def exact_sums(maps: list[Tensor], factors: Tensor, channels: list[int]) -> list[Tensor]:
    mixed = (
        torch.einsum('jibc,ibcp->jbcp', factors[:, :-1], padded(maps)) + factors[:, -1, ..., None]
    )
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
    outs = module.row_sums(maps, factors, channels)
    for out, exact in zip(outs, exact_sums(maps, factors, channels), strict=True):
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
