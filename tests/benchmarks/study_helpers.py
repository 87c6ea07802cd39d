"""What the tests of the benchmarks of training have in common."""

from __future__ import annotations

import re
import runpy
import signal
from pathlib import Path

import pytest

from mmsw.demo import make_demo_data

ROOT = Path(__file__).resolve().parents[2]
SMALL_BACKBONE = 'arch=dict(depths=[1] * 4, dims=[8] * 4), big_kernels=(7, 7, 5, 3)'


def call_tool(tool: Path, *arguments: object) -> int:
    """Call a tool in this process; returns the exit code."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return runpy.run_path(str(tool))['main']([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)


def assert_one_line_and_nothing_left(
    tool: Path, arguments: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tool that cannot do what was asked for says so, and leaves the working folder empty."""
    assert call_tool(tool, '--out', 'out', *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ')
    assert re.search(message, error), error
    assert list(Path().iterdir()) == []


def make_scenes(tmp_path_factory: pytest.TempPathFactory, num_train: int, *needed: str) -> Path:
    """Demonstration data of a test's size; packages that are needed too are named."""
    for package in ('skimage', 'sklearn', 'imgviz', 'matplotlib', *needed):
        pytest.importorskip(package, reason=f'{package}: absent; the benchmark needs it')
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    make_demo_data(folder, num_train=num_train, num_val=3, size=96)
    return folder


def write_config(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    """A config with a network of a test's size."""
    path = tmp_path_factory.mktemp('config') / 'mini.py'
    path.write_text(text)
    return path
