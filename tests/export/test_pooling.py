"""Adaptive pooling in plain operators, against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmsw.deploy.export.pooling import ExactPooling, adaptive_average_pool, interval_means
from mmsw.errors import UsageError


@pytest.mark.parametrize('parts', [1, 2, 3, 6, 7])
def test_intervals(parts: int) -> None:
    for size in (1, 2, 5, 6, 7, 16, 33):
        expected = torch.zeros(parts, size, dtype=torch.float64)
        for i in range(parts):
            start, stop = i * size // parts, -(-(i + 1) * size // parts)
            expected[i, start:stop] = 1 / (stop - start)
        found = interval_means(size, parts, torch.device('cpu')).double()
        assert torch.allclose(found, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize('output_size', [1, 2, 6, (3, 5), (None, 2)], ids=str)
@pytest.mark.parametrize('sides', [(7, 5), (1, 1), (64, 33), (257, 300)], ids=str)
def test_against_float64(sides: tuple[int, int], output_size) -> None:
    x = torch.randn(2, 3, *sides) + 10
    expected = F.adaptive_avg_pool2d(x.double(), output_size)
    found = adaptive_average_pool(x, output_size)
    assert found.shape == expected.shape
    assert ((found - expected).abs().max() / expected.abs().max()).item() < 1e-6


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x = (torch.randn(1, 2, 96, 64) + 100).to(dtype)
    expected = F.adaptive_avg_pool2d(x.double(), 3)
    found = adaptive_average_pool(x, 3)
    assert found.dtype == dtype
    assert ((found.double() - expected).abs() / expected).max() < 0.51 * torch.finfo(dtype).eps


def test_every_call_is_found() -> None:
    x = torch.randn(1, 2, 7, 5)
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.AdaptiveAvgPool2d(3))
    sides = {2: torch.export.Dim('h', min=2, max=64), 3: torch.export.Dim('w', min=2, max=64)}
    with ExactPooling():
        graph = torch.export.export(net, (x,), dynamic_shapes=(sides,))
    assert not [node for node in graph.graph.nodes if 'adaptive' in str(node.target)]
    for shape in ((7, 5), (16, 9), (40, 41)):
        other = torch.randn(1, 2, *shape)
        assert torch.allclose(graph.module()(other), net(other), atol=1e-6)
    with ExactPooling(), pytest.raises(UsageError, match='adaptive_max_pool2d has no form'):
        nn.AdaptiveMaxPool2d(2)(x)
