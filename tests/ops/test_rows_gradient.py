"""Weighted sums of rows whose weights follow from the moments of the rows: their gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shift_wise_literal import relative_error
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from mmsw.ops.rows import add_scaled, rows_of

Maps = tuple[Tensor, ...]


def normalised(x: Tensor, h: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Weights of the sum from means and variances over samples, and from covariances."""
    rows = rows_of(x, h, v)
    variance = rows.covariance.diagonal().permute(2, 0, 1).mean(1) + rows.mean.var(
        1, unbiased=False
    )
    scales = (weight / (variance + 1).sqrt()).unsqueeze(1).expand_as(rows.mean)
    power = torch.einsum('ibc,jbc,ijbc->bc', scales, scales, rows.covariance)
    mean = (scales * (rows.mean - rows.mean.mean(1, keepdim=True))).sum(0)
    return rows.combine(scales * torch.sigmoid(power), mean * power)


def onto_another(x: Tensor, h: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """The sum is added to a map with more channels, which pass unchanged."""
    rows = rows_of(h, v)
    power = rows.covariance.sum((0, 1))
    return rows.combine(weight[:2, :2].unsqueeze(1) * power, rows.mean.sum(0), x)


def without_moments(x: Tensor, h: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    return add_scaled(x, x * x, weight[:1].expand(2, -1))


def two_sums(x: Tensor, h: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    rows = rows_of(x, h)
    one = rows.combine(weight[:2].unsqueeze(1) * rows.covariance[0], rows.mean[1])
    return one * rows.combine(rows.mean * rows.mean, rows.covariance[0, 1])


def no_sum(x: Tensor, h: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    rows = rows_of(x, h, v)
    return (rows.covariance * rows.mean * weight.unsqueeze(1)).sum((0, 1))


def too_many_sums(x: Tensor, h: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """More gradients and maps than a compiled pass takes."""
    rows = rows_of(x, h, v)
    sums = [rows.combine(rows.mean * k, rows.covariance[0, k - 1]) for k in (1, 2, 3)]
    return sums[0] * sums[1] + sums[2]


FUNCTIONS = [normalised, onto_another, without_moments, two_sums, no_sum, too_many_sums]


def draw(dtype: torch.dtype = torch.float64, positions: int = 5) -> list[Tensor]:
    torch.manual_seed(0)
    maps = [torch.randn(2, count, positions, dtype=dtype) + 1 for count in (3, 2, 2)]
    return [m.requires_grad_() for m in (*maps, torch.randn(3, 3, dtype=torch.float64))]


@pytest.mark.parametrize('function', FUNCTIONS, ids=lambda f: f.__name__)
def test_gradients(every_backend: str, function: Callable[..., Tensor]) -> None:
    assert gradcheck(function, draw())
    assert gradgradcheck(function, draw())


@pytest.mark.parametrize('function', FUNCTIONS, ids=lambda f: f.__name__)
def test_float32_is_near_float64(every_backend: str, function: Callable[..., Tensor]) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs = draw(torch.float32, 70)
        used = [x.detach().to(dtype).requires_grad_() for x in inputs[:3]] + inputs[3:]
        out = function(*used)
        grads = torch.autograd.grad(out.double().square().sum(), used, allow_unused=True)
        results.append([out, *(grad for grad in grads if grad is not None)])
    for ours, exact in zip(*results, strict=True):
        assert relative_error(ours.double(), exact) < 1e-5


def test_some_of_the_gradients() -> None:
    """Each by itself, twice from one graph, and with maps that need none."""
    inputs = draw()
    out = normalised(*inputs).square().sum()
    every = torch.autograd.grad(out, inputs, retain_graph=True)
    for _ in range(2):
        for tensor, grad in zip(inputs, every, strict=True):
            (alone,) = torch.autograd.grad(out, tensor, retain_graph=True)
            assert torch.equal(alone, grad)
    for needed in range(4):
        some = [x.detach().requires_grad_(i == needed) for i, x in enumerate(inputs)]
        normalised(*some).square().sum().backward()
        assert [x.grad is not None for x in some] == [i == needed for i in range(4)]
        assert relative_error(some[needed].grad, every[needed]) < 1e-12


def test_no_map_is_kept_for_weights_that_need_no_gradient() -> None:
    x, y = torch.randn(2, 3, 40, requires_grad=True), torch.randn(2, 3, 40, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        out = add_scaled(x, y, torch.full((2, 3), 0.5, dtype=torch.float64))
    assert max(kept) == 6
    out.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert torch.equal(y.grad, torch.full_like(y, 0.5))
