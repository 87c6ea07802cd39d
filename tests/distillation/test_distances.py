"""Distances and their gradients against literal formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmsw.engine.distillation.distances import decorrelation, divergence, resized

SHAPES = [(1, 2, 1, 3), (2, 3, 5, 4), (3, 1, 2, 2)]


def maps(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    own, other = (3 * torch.randn(shape) for _ in range(2))
    return own.to(dtype).requires_grad_(), other.to(dtype)


def literal_divergence(own: Tensor, other: Tensor, temperature: float, over: str) -> Tensor:
    """Sum by sum, as the formula stands in a paper."""
    images, classes, height, width = own.shape
    own, other = (x.reshape(images, classes, height * width) / temperature for x in (own, other))
    rows = []
    for image in range(images):
        pairs = zip(own[image], other[image], strict=True)
        if over == 'classes':
            pairs = zip(own[image].T, other[image].T, strict=True)
        for student, teacher in pairs:
            p = teacher.exp() / teacher.exp().sum()
            q = student.exp() / student.exp().sum()
            rows.append((p * (p / q).log()).sum())
    return temperature**2 * sum(rows) / len(rows)


@pytest.mark.parametrize('over', ['space', 'classes'])
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_divergence(shape, over, temperature) -> None:
    own, other = maps(shape)
    exact = own.detach().double().requires_grad_()
    expected = literal_divergence(exact, other.double(), temperature, over)
    found = divergence(own, other, temperature, over)
    found.backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(own.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('over', ['space', 'classes'])
def test_divergence_of_equals_is_zero_and_without_gradient(over) -> None:
    own, _ = maps((2, 3, 4, 5))
    found = divergence(own, own.detach().clone(), 2.0, over)
    found.backward()
    assert abs(found.item()) < 1e-6
    assert own.grad.abs().max() < 1e-6


@pytest.mark.parametrize('shape', SHAPES)
def test_decorrelation(shape) -> None:
    own, other = maps(shape)
    rows = [x.detach().transpose(0, 1).flatten(1).double().numpy() for x in (own, other)]
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(*rows, strict=True)]
    found = decorrelation(own, other)
    found.backward()
    assert found.item() == pytest.approx(1 - np.mean(correlations), abs=1e-4)
    # d r / d x = (t - r s) / (n sd), with s and t of mean 0 and variance 1
    gradient = np.zeros_like(rows[0])
    for channel, (a, b, r) in enumerate(zip(*rows, correlations, strict=True)):
        s, t = ((x - x.mean()) / x.std() for x in (a, b))
        gradient[channel] = -(t - r * s) / (a.size * a.std() * len(correlations))
    mine = own.grad.transpose(0, 1).flatten(1).double().numpy()
    np.testing.assert_allclose(mine, gradient, rtol=1e-3, atol=1e-5)


def test_scale_and_offset_do_not_count() -> None:
    own, other = maps((2, 3, 6, 5))
    factors, offsets = torch.tensor([0.5, 3.0, 40.0]), torch.tensor([-7.0, 0.0, 2.0])
    changed = other * factors.view(1, 3, 1, 1) + offsets.view(1, 3, 1, 1)
    torch.testing.assert_close(
        decorrelation(own, changed), decorrelation(own, other), rtol=0, atol=1e-4
    )


def test_an_empty_channel_has_a_finite_gradient() -> None:
    """Pruning can leave a channel constant."""
    own, other = maps((2, 2, 4, 4))
    with torch.no_grad():
        own[:, 0] = 0
    found = decorrelation(own, other)
    found.backward()
    assert math.isfinite(found.item())
    assert own.grad.isfinite().all()


@pytest.mark.parametrize('distance', [decorrelation, lambda a, b: divergence(a, b, 4.0, 'space')])
def test_half_precision_is_computed_in_single(distance) -> None:
    own, other = maps((2, 3, 8, 8), torch.float16)
    found = distance(own, other)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distance(own.float(), other.float()))
    found.backward()
    assert own.grad.isfinite().all()


def test_resizing() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert resized(x, (3, 4)) is x
    assert resized(x, (5, 7), align_corners=True)[0, 0, -1].tolist() == pytest.approx(
        [8.0, 8.5, 9.0, 9.5, 10.0, 10.5, 11.0]
    )
