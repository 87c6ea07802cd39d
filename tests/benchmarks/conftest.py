"""Fixtures of the tests of all benchmarks of training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmsw.benchmarks import execution


@pytest.fixture
def failing_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training prints two lines and ends with exit code 3."""
    real = execution.command

    def command(config: Path, nproc: int) -> list[str]:
        assert real(config, nproc)[0] == sys.executable
        return [sys.executable, '-c', 'print("one"); print("two"); raise SystemExit(3)']

    monkeypatch.setattr(execution, 'command', command)
