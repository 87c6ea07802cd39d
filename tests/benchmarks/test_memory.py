"""Memory that was freed is free for others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mmsw.benchmarks.memory import give_back, resident_peak

_STATE = Path('/proc/self/statm')


def _resident() -> int:
    return 4096 * int(_STATE.read_text().split()[1])


@pytest.mark.skipif(not _STATE.is_file(), reason='/proc: absent, so nobody says what is resident')
def test_freed_memory_goes_back_to_the_system() -> None:
    size, number = 1 << 16, 1 << 11  # below the size from which each block is mapped by itself
    before = _resident()
    blocks = [torch.ones(size, dtype=torch.uint8) for _ in range(number)]
    last = torch.ones(size, dtype=torch.uint8)  # keeps the end of the heap in use
    assert _resident() - before > 0.9 * size * number
    assert resident_peak() >= _resident()
    del blocks
    give_back()
    assert _resident() - before < 0.3 * size * number
    assert last.sum() == size


def test_other_systems_keep_what_they_keep(monkeypatch) -> None:
    monkeypatch.setattr(sys, 'platform', 'darwin')
    give_back()
