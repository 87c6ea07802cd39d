"""Fixtures of the tests of the benchmark of whole networks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from timing_helpers import (
    make_small,
)
from tiny_networks import tiny_networks

from mmsw.benchmarks.model import benchmark as model_benchmark
from mmsw.benchmarks.model.kinds import (
    KINDS,
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks, few samples of each, a small product for the rate, and no profiled probes."""
    monkeypatch.setattr(model_benchmark, 'networks', tiny_networks)
    make_small(monkeypatch, model_benchmark, least=2)
    monkeypatch.setattr(model_benchmark, 'peak_memory', lambda call, device: (call(), 2**20))


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network has a million multiply-adds: counting takes longer than the rest."""
    monkeypatch.setattr(
        'mmsw.benchmarks.model.contender.complexity', lambda *_: SimpleNamespace(macs_dense=10**6)
    )


@pytest.fixture
def bare(tiny: None, uncounted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``tiny``, without torch's profiler and the picture as well."""

    def inspected(call: Callable[[], object], device: torch.device) -> tuple:
        return call(), 2**20, dict.fromkeys(KINDS, 1 / len(KINDS))

    monkeypatch.setattr(model_benchmark, 'inspected', inspected)
    monkeypatch.setattr('mmsw.benchmarks.model.report.draw', lambda result, path: None)
