"""Memory that was freed is free for others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from study_helpers import ROOT

from mmsw.benchmarks.memory import give_back

# In a process of its own: what others freed before would be used again.
_FREED = """
from pathlib import Path

import torch

from mmsw.benchmarks.memory import give_back, resident_peak


def resident():
    return 4096 * int(Path('/proc/self/statm').read_text().split()[1])


size, number = 1 << 16, 1 << 11  # below the size from which each block is mapped by itself
torch.ones(size).sum()
before = resident()
blocks = [torch.ones(size, dtype=torch.uint8) for _ in range(number)]
last = torch.ones(size, dtype=torch.uint8)  # keeps the end of the heap in use
taken = resident() - before
assert taken > 0.9 * size * number, taken
assert resident_peak() >= before + taken
del blocks
give_back()
left = resident() - before
assert left < 0.3 * size * number, left
assert last.sum() == size
"""


@pytest.mark.skipif(not Path('/proc/self/statm').is_file(), reason='proc: no /proc here')
def test_freed_memory_goes_back_to_the_system() -> None:
    called = [sys.executable, '-c', _FREED]
    done = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_other_systems_keep_what_they_keep(monkeypatch) -> None:
    monkeypatch.setattr(sys, 'platform', 'darwin')
    give_back()
