"""How ``make`` and ``tools/setup_env.sh`` set up, what they build anew, and how they refuse."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from check_env import is_installed_as_mmsw, operators_are_built, torch_version
from packaging_helpers import ROOT, copy_of_sources, run

from mmsw.ops import compiled

needs_make = pytest.mark.skipif(shutil.which('make') is None, reason='make: not installed')


@pytest.fixture(scope='module')
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_sources(tmp_path_factory.mktemp('source') / 'mmsw')


@needs_make
@pytest.mark.parametrize('stack', ['bogus', '', 'openmmlab onedl'])
def test_unknown_stack_is_refused(stack: str) -> None:
    made = run('make', 'setup', f'STACK={stack}')
    assert made.returncode != 0
    assert f"STACK='{stack}' is unknown; choose STACK=openmmlab or STACK=onedl" in made.stdout


@needs_make
def test_python_that_does_not_exist_is_refused() -> None:
    made = run('make', 'test', 'PYTHON=/nonexistent/python')
    assert made.returncode != 0
    assert "PYTHON='/nonexistent/python' was not found" in made.stdout
    assert 'pytest' not in made.stdout


@needs_make
def test_python_that_lacks_packages_is_told_which(tmp_path: Path) -> None:
    bare = tmp_path / 'python'  # an interpreter that sees the standard library only
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n', 'utf-8')
    bare.chmod(0o755)
    made = run('make', 'demo', f'PYTHON={bare}')
    assert made.returncode != 0
    for module, package in (('mmseg', 'mmsegmentation'), ('skimage', 'scikit-image')):
        assert f'module {module} is missing (package {package})' in made.stdout
    assert 'nothing is installed' in made.stdout
    assert 'demo data' not in made.stdout


@pytest.mark.parametrize(
    ('variables', 'message'),
    [
        ({'BASE_PYTHON': '/nonexistent/python'}, "BASE_PYTHON='/nonexistent/python' was not found"),
        (
            {'BASE_PYTHON': sys.executable, 'CXX': '/nonexistent/c++'},
            "no C++ compiler '/nonexistent/c++'",
        ),
    ],
)
def test_setup_finds_faults_before_it_installs(
    source_tree: Path, variables: dict[str, str], message: str
) -> None:
    made = run('tools/setup_env.sh', 'onedl', cwd=source_tree, **variables)
    assert made.returncode == 1
    assert message in made.stdout
    assert not (source_tree / '.venv').exists()


def test_setup_refuses_an_old_interpreter(source_tree: Path, tmp_path: Path) -> None:
    old = tmp_path / 'python'  # answers every question as a Python before 3.10 would
    old.write_text(
        '#!/bin/sh\ncase "$2" in *sys.exit*) exit 1 ;; *) echo 3.9 ;; esac\n', encoding='utf-8'
    )
    old.chmod(0o755)
    made = run('tools/setup_env.sh', 'onedl', cwd=source_tree, BASE_PYTHON=str(old))
    assert made.returncode == 1
    assert f"BASE_PYTHON='{old}' is Python 3.9; mmsw needs 3.10 or newer" in made.stdout
    assert not (source_tree / '.venv').exists()


FAKE_PYTHON = """#!/bin/sh
echo "$0 $*" >>"$CALLS"
case "$*" in
    *sys.version_info*) echo 3.11 ;;
    "- "*) exit "$PINS_DIFFER" ;;
    *"-m venv"*) exit 1 ;;
    *"$FAILS"*) exit 1 ;;
    *--operators*) exit 1 ;;
    *sha256*) cksum ;;
esac
"""


@pytest.mark.parametrize(
    ('stamp', 'moved', 'pins_differ', 'kept'),
    [
        ('ready', False, False, True),
        ('ready', False, True, False),
        ('ready', True, False, False),
        ('unfinished', False, False, False),
    ],
)
def test_new_requirements_are_installed_into_the_environment_that_is_there(
    source_tree: Path, tmp_path: Path, stamp: str, moved: bool, pins_differ: bool, kept: bool
) -> None:
    """Unless it lacks the pinned torch or mmcv, was made elsewhere or never finished."""
    tree = tmp_path / 'mmsw'
    ignore = shutil.ignore_patterns('tests', 'configs', '*.so')
    shutil.copytree(source_tree, tree, ignore=ignore)
    scripts = tree / '.venv' / 'onedl' / 'bin'
    scripts.mkdir(parents=True)
    (scripts.parent / stamp).write_text('stack 0\nmmsw 0\n', encoding='utf-8')
    place = tmp_path / 'elsewhere' if moved else tree
    (scripts / 'activate').write_text(f'VIRTUAL_ENV="{place}/.venv/onedl"\n', encoding='utf-8')
    for python in (scripts / 'python', tmp_path / 'base'):
        python.write_text(FAKE_PYTHON, encoding='utf-8')
        python.chmod(0o755)
    calls = tmp_path / 'calls'
    settings = dict(CALLS=str(calls), PINS_DIFFER=str(int(pins_differ)), CXX='true', MAX_JOBS='1')
    settings |= dict(BASE_PYTHON=str(tmp_path / 'base'), FAILS='nothing')
    if kept:  # first an update that is cut off
        broken = {**settings, 'FAILS': 'requirements/test.txt'}
        assert run('tools/setup_env.sh', 'onedl', cwd=tree, **broken).returncode == 1
        assert 'stack 0' not in (scripts.parent / 'ready').read_text(encoding='utf-8')
    made = run('tools/setup_env.sh', 'onedl', cwd=tree, **settings)
    called = calls.read_text(encoding='utf-8')
    assert ('-m venv' in called) != kept
    assert scripts.exists() == kept
    assert ('-r requirements/test.txt' in called) == kept
    assert not [line for line in called.splitlines() if 'install' in line and 'mmcv' in line]
    assert made.returncode == (0 if kept else 1), made.stdout
    if kept:
        assert 'updating .venv/onedl' in made.stdout
        assert (scripts.parent / 'ready').read_text(encoding='utf-8') != 'stack 0\nmmsw 0\n'


def test_the_version_of_torch_is_known_without_importing_it() -> None:
    assert torch_version() == torch.__version__


@pytest.mark.parametrize('leaves', ['library', 'record', 'nothing', 'those of another torch'])
def test_set_up_builds_where_the_operators_of_this_torch_are_missing(
    tmp_path: Path, leaves: str
) -> None:
    shutil.copy2(ROOT / 'mmsw' / 'ops' / 'compiled.py', tmp_path)
    if leaves == 'library':
        compiled.library_path(torch.__version__, tmp_path).touch()
    elif leaves == 'record':
        compiled.write_record(tmp_path, torch.__version__, {'cpp': 'MSVC cannot compile them'})
    elif leaves == 'those of another torch':
        compiled.library_path('2.99.0+cpu', tmp_path).touch()
    assert operators_are_built(tmp_path) == (leaves in ('library', 'record'))


@pytest.mark.parametrize(
    ('origin', 'ours'),
    [
        ({'url': 'file://{}', 'dir_info': {'editable': True}}, True),
        ({'url': 'file://{}', 'dir_info': {}}, False),
        ({'url': 'file:///elsewhere', 'dir_info': {'editable': True}}, False),
        (None, False),  # from the package index: somebody else's
    ],
)
def test_only_this_checkout_is_removed_under_the_old_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict | None, ours: bool
) -> None:
    checkout = tmp_path / 'check out'
    info = tmp_path / 'mmsw-0.0.37.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Name: mmsw\nVersion: 0.0.37\n', encoding='utf-8')
    if origin is not None:
        url = origin['url'].format(str(checkout).replace(' ', '%20'))
        (info / 'direct_url.json').write_text(json.dumps({**origin, 'url': url}), encoding='utf-8')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert is_installed_as_mmsw(checkout) == ours


@pytest.mark.parametrize('silence', ['read', 'bash32_read'])
def test_silence_is_not_taken_for_the_end(silence: str) -> None:
    """Bash 3.2, which macOS has, ends a read that waited too long with 1, as the end of a file."""
    text = (ROOT / 'tools' / 'setup_env.sh').read_text(encoding='utf-8')
    parts = [
        re.search(rf'^{name}\(\) {{(?:[^\n]*}}$|.*?^}})', text, flags=re.M | re.S)[0]
        for name in ('note', 'progress')
    ]
    script = '\n'.join(
        [
            'bash32_read() { builtin read "$@" || return 1; }',
            'heartbeat=2',
            *parts,
        ]
    ).replace('IFS= read', f'IFS= {silence}')
    feed = '(echo Collecting first; sleep 5; echo Collecting second) | progress'
    done = run('bash', '-c', f'set -euo pipefail\n{script}\n{feed}')
    assert done.returncode == 0, done.stdout
    said = [line.partition('] ')[2] for line in done.stdout.splitlines()]
    assert said[0] == 'Collecting first'
    assert said[-1] == 'Collecting second'
    assert set(said[1:-1]) == {'still working'}
