"""What the tests of the two tools that time networks and operators have in common."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from study_helpers import assert_one_line_and_nothing_left, call_tool


def make_small(monkeypatch: pytest.MonkeyPatch, benchmark: ModuleType, **settings: int) -> None:
    """Few samples in every preset of a benchmark, and small scales of the machine."""
    for name, preset in benchmark.PRESETS.items():
        small = replace(preset, rounds=2, budget=0.001, **settings)
        monkeypatch.setitem(benchmark.PRESETS, name, small)
    monkeypatch.setattr('mmsw.benchmarks.measure._MATMUL_SIDE', 32)
    monkeypatch.setattr('mmsw.benchmarks.measure._COPY_NUMBERS', 1000)


def result_in(folder: Path) -> dict:
    """What a run has written."""
    return json.loads((folder / 'benchmark.json').read_text(encoding='utf-8'))


def assert_whole_report(out: Path, kind: str, text: str) -> None:
    """All files of a run are there, and say where it was."""
    result = result_in(out)
    assert result['format'] == f'mmsw.{kind}/1'
    assert result['machine']['torch'] == torch.__version__
    assert {'cpu', 'cpus', 'date', 'bfloat16_instructions'} <= set(result['machine'])
    assert (out / 'benchmark.md').read_text(encoding='utf-8') == text
    files = {'benchmark.json', 'benchmark.md'}
    if importlib.util.find_spec('matplotlib'):
        files |= {'benchmark.png', 'benchmark.svg'}
        assert (out / 'benchmark.svg').read_text(encoding='utf-8').startswith('<?xml')
        assert (out / 'benchmark.png').read_bytes().startswith(b'\x89PNG')
    assert {path.name for path in out.iterdir()} == files


def assert_bad_arguments_are_named(
    tool: Path, cases: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of some arguments has its message, in one line and before there is a folder.

    Args:
        tool: The tool.
        cases: Messages, by arguments with spaces between them.
        tmp_path: An empty folder, the current one.
        capsys: What is printed.
    """
    common = {
        '--device tpu': "device must be cpu or cuda, got 'tpu'",
        '--crop 100': 'crops must be positive multiples of 32, got 100',
        '--batch 0': 'batches must be at least 1, got 0',
        '--threads 0': 'processors here, got 0',
    }
    for arguments, message in (common | cases).items():
        assert_one_line_and_nothing_left(tool, arguments.split(' '), re.escape(message), capsys)
    (tmp_path / 'file').touch()
    assert call_tool(tool, '--out', tmp_path / 'file', '--quick') == 2
    assert 'file' in capsys.readouterr().err


def assert_nobody_of_a_name(
    tool: Path, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ``--only`` that fits nobody names the contenders."""
    out = tmp_path / 'nobody'
    sizes = ['--crop', '32', '--batch', '1']
    assert call_tool(tool, '--out', out, '--only', 'nobody', *sizes) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: only must be parts of names of ['{first}")
    assert error.endswith("got ['nobody']")
    assert not list(out.iterdir())
