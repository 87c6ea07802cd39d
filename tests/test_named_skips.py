"""Skips have names, and MMSW_TEST_REQUIRE turns those of some names into failures."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest
from named_skips import VARIABLE, name_of, problem, required_names

TESTS = Path(__file__).parent
EXAMPLES = """
import pytest

def test_passes():
    pass

def test_in_the_body():
    pytest.skip('nvcc: none here')

@pytest.mark.skipif(True, reason='taichi: none here')
def test_by_mark():
    pass

@pytest.mark.xfail(strict=True)
def test_known_fault():
    assert False
"""
MODULE = "import pytest\npytest.importorskip('no_such_package', reason='mmdet: absent')\n"


def run(folder: Path, require: str | None, *more: str) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key != VARIABLE}
    env |= {'PYTHONPATH': str(TESTS)} | ({} if require is None else {VARIABLE: require})
    options = ['-p', 'named_skips', '-p', 'no:cacheprovider', '-rs', '-q', f'--rootdir={folder}']
    return subprocess.run(
        [sys.executable, '-m', 'pytest', *options, *more, '.'],
        cwd=folder,
        env=env,
        text=True,
        capture_output=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'pytest.ini').write_text('[pytest]\n')
    (tmp_path / 'test_examples.py').write_text(EXAMPLES)
    (tmp_path / 'test_module.py').write_text(MODULE)
    return tmp_path


def test_without_the_variable_skips_are_skips_with_readable_reasons(folder: Path) -> None:
    done = run(folder, None)
    assert done.returncode == 0, done.stdout
    assert '1 passed, 3 skipped, 1 xfailed' in done.stdout
    for line in ('nvcc: none here', 'taichi: none here', 'mmdet: absent'):
        assert line in done.stdout


@pytest.mark.parametrize(('name', 'outcome'), [('nvcc', '1 failed'), ('taichi', '1 error')])
def test_required_name_fails_and_the_others_are_skipped(
    folder: Path, name: str, outcome: str
) -> None:
    done = run(folder, f' {name}, cuda')
    assert done.returncode == 1
    for part in ('1 passed, 2 skipped, 1 xfailed', outcome):
        assert part in done.stdout
    assert f'{VARIABLE} has {name}, but skipped: {name}: none here' in done.stdout


def test_required_name_of_a_whole_file_fails(folder: Path) -> None:
    done = run(folder, 'mmdet')
    assert done.returncode == 2
    assert f'{VARIABLE} has mmdet, but skipped: mmdet: absent' in done.stdout
    assert 'ERROR collecting test_module.py' in done.stdout


@pytest.mark.skipif(util.find_spec('xdist') is None, reason='xdist: absent')
def test_workers_of_a_parallel_run_judge_as_well(folder: Path) -> None:
    done = run(folder, 'nvcc', '-n', '1')
    assert '1 failed, 1 passed, 2 skipped, 1 xfailed' in done.stdout, done.stderr
    assert done.returncode == 1
    assert f'{VARIABLE} has nvcc, but skipped: nvcc: none here' in done.stdout
    done = run(folder, 'mmdet', '-n', '1')
    assert f'{VARIABLE} has mmdet, but skipped: mmdet: absent' in done.stdout
    assert 'ERROR collecting test_module.py' in done.stdout
    assert done.returncode == 1


def test_skip_without_a_known_name_fails(folder: Path) -> None:
    text = "import pytest\ndef test_it():\n    pytest.skip('not today')\n"
    (folder / 'test_examples.py').write_text(text)
    done = run(folder, None)
    assert done.returncode == 1
    assert "skipped without a known name: 'not today'" in done.stdout


def test_unknown_name_is_an_error_that_lists_the_known_ones(folder: Path) -> None:
    done = run(folder, 'nvcc,gpu')
    assert done.returncode == 4
    assert f'{VARIABLE} names gpu, which no skip has; known: ' in done.stderr
    assert ', taichi,' in done.stderr
    with pytest.raises(pytest.UsageError, match='names a, b, which no skip has'):
        required_names('b,a,cuda')
    assert required_names('') == required_names(' , ') == set()


def test_judgement_of_a_reason() -> None:
    assert name_of('Skipped: cpp: not compiled') == 'cpp'
    assert name_of('cpp not compiled: why') is None
    assert problem('cpp: not compiled', {'cuda'}) is None
    assert 'has cpp, but skipped: cpp: not' in problem('Skipped: cpp: not compiled', {'cpp'})


@pytest.mark.parametrize('has_nvcc', [False, True])
def test_ci_requires_what_it_has(tmp_path: Path, has_nvcc: bool) -> None:
    for program in ('make', 'nvcc') if has_nvcc else ('make',):
        (tmp_path / program).write_text(f'#!/bin/sh\necho "$* ${VARIABLE}"\n')
        (tmp_path / program).chmod(0o755)
    for program in ('bash', 'dirname'):
        (tmp_path / program).symlink_to(shutil.which(program))
    env = {'PATH': str(tmp_path)}
    script = TESTS.parent / '.ci' / 'run'
    done = subprocess.run(['bash', script], env=env, text=True, capture_output=True, check=True)
    _, first, second, third = done.stdout.splitlines()
    assert first.startswith('--no-print-directory test ')
    assert second.startswith('--no-print-directory test-slow TEST_ARGS=-m "slow and ci" ')
    assert third.startswith('--no-print-directory docs ')
    for line in (first, second, third):
        required = required_names(line.rpartition(' ')[2])
        assert {'cpp', 'taichi', 'mmseg', 'mmdet'} < required
        assert ('nvcc' in required) == has_nvcc
        assert not required & {'cuda', 'mmpretrain'}  # set-up cannot bring them
    env[VARIABLE] = ''
    done = subprocess.run(['bash', script], env=env, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[1] == '--no-print-directory test '


def skips() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the tests that can skip one, with its place."""
    for path in sorted(TESTS.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and ast.unparse(called) in (
                *('pytest.skip', 'pytest.importorskip', 'pytest.mark.skip', 'pytest.mark.skipif'),
            ):
                yield f'{path.relative_to(TESTS)}:{node.lineno}', node


def begins_with_a_name(call: ast.Call) -> bool:
    """Whether the reason of a skip has a name, or inserts one: then the run tells which."""
    reasons = [item.value for item in call.keywords if item.arg == 'reason']
    if not reasons and ast.unparse(call.func) == 'pytest.skip':
        reasons = call.args[:1]
    start = reasons[0] if reasons else None
    if isinstance(start, ast.JoinedStr):
        start, *rest = start.values
        if rest and isinstance(start, ast.FormattedValue):
            return isinstance(rest[0], ast.Constant) and rest[0].value.startswith(': ')
    if isinstance(start, ast.Constant):
        return name_of(start.value) is not None
    return start is not None


def test_every_skip_of_the_tests_has_a_name() -> None:
    """Also of those that other machines skip."""
    found = list(skips())
    assert len(found) > 40
    assert [place for place, call in found if not begins_with_a_name(call)] == []
