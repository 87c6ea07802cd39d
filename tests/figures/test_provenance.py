"""Where figures come from: commit and changes of a source tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmsw.benchmarks.provenance import UNKNOWN, changed_since, commit_of_code, provenance


def git(root: Path, *words: str) -> str:
    who = ['-c', 'user.name=a', '-c', 'user.email=a@b.c', '-c', 'commit.gpgsign=false']
    called = ['git', '-C', str(root), *who, *words]
    return subprocess.run(called, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with code and a page."""
    for name in ('mmsw/a.py', 'docs/a.md'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text('1\n', encoding='utf-8')
    git(tmp_path, 'init', '-q')
    git(tmp_path, 'add', '-A')
    git(tmp_path, 'commit', '-qm', 'a')
    return tmp_path


def test_code_decides_whether_a_tree_is_dirty(tree: Path) -> None:
    commit = commit_of_code(tree)
    assert git(tree, 'rev-parse', 'HEAD').startswith(commit)
    (tree / 'docs/a.md').write_text('2\n', encoding='utf-8')
    assert commit_of_code(tree) == commit
    (tree / 'mmsw/b.py').write_text('2\n', encoding='utf-8')
    assert commit_of_code(tree) == f'{commit}-dirty'


def test_what_has_changed_since(tree: Path) -> None:
    commit = commit_of_code(tree)
    assert changed_since(commit, tree) == 0
    (tree / 'mmsw/b.py').write_text('2\n', encoding='utf-8')
    assert changed_since(f'{commit}-dirty', tree) == 1
    git(tree, 'add', '-A')
    git(tree, 'commit', '-qm', 'b')
    (tree / 'mmsw/a.py').write_text('2\n', encoding='utf-8')
    (tree / 'docs/a.md').write_text('2\n', encoding='utf-8')
    assert changed_since(commit, tree) == 2
    assert changed_since('0123456789', tree) is None


def test_without_a_checkout(tmp_path: Path) -> None:
    assert commit_of_code(tmp_path) == UNKNOWN
    assert changed_since('0123456789', tmp_path) is None


def test_a_command_is_told_as_one_types_it(monkeypatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['/a/b/tools/test.py', '--out', 'a b'])
    found = provenance()
    assert found['command'] == "python tools/test.py --out 'a b'"
    assert found['packages']['torch']
    assert found['commit']
    assert found['date']
