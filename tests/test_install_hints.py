"""How mmsw says that something is to be installed: from the checkout, never by a name of an index.

The name ``mmsw`` belongs to somebody else on the package index.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmsw import install_hint
from mmsw.install_hint import how_to_install

ROOT = Path(__file__).resolve().parents[1]
OURS = r'(?:mmsw|mmshiftwise)'
ORDER = r'\b(?:pip3?|pipx|uv|mim|conda)\s+(?:install|add)\b'
# Options, quotes and other packages may stand before the name. A path is not a name (./mmsw,
# mmsw/ops), and the text may be cut into several lines or string literals.
BY_NAME = re.compile(rf'{ORDER}[^.;:()\n]*?[\s\'"`]{OURS}(?=[\s\'"`\[=<>~!,;.)]|$)(?![./]\w)')
CUT = re.compile(rf'{ORDER}[\s\'"`\\]+{OURS}(?=[\s\'"`\[=<>~!,;)]|$)')
WITH_EXTRA = re.compile(rf'(?<![\w./-]){OURS}\[[a-z][a-z,-]*\]')  # mmsw[openmmlab], wherever
TEXT = re.compile(r'\.(py|md|txt|sh|toml|ya?ml|in|cpp|cuh?|h)|')
LEFT_OUT = {'.git', '.venv', 'build', 'dist', 'data', 'work_dirs', 'checkpoints'}
NEEDLE = 'pip' + ' install '  # so that this file does not offend itself


def offences(text: str) -> list[str]:
    """Every place of a text that installs one of the names from an index."""
    return [m[0] for pattern in (BY_NAME, CUT, WITH_EXTRA) for m in pattern.finditer(text)]


def text_files() -> list[Path]:
    """All text files of the source tree: the tracked ones, or all where there is no git."""
    if (ROOT / '.git').exists() and shutil.which('git'):
        listed = subprocess.run(
            ['git', 'ls-files', '-z'], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        found = [ROOT / name for name in listed.split('\0') if name]
    else:
        found = [
            path
            for top in ROOT.iterdir()
            if top.name not in LEFT_OUT and not top.name.endswith('.egg-info')
            for path in ([top] if top.is_file() else top.rglob('*'))
        ]
    return [
        p
        for p in found
        if p.is_file() and TEXT.fullmatch(p.suffix) and p != Path(__file__).resolve()
    ]


@pytest.mark.parametrize(
    'text',
    [
        NEEDLE + 'mmsw',
        NEEDLE + "'mmsw[openmmlab]'",
        NEEDLE + '-U --no-deps "mmshiftwise==0.1.0"',
        NEEDLE + 'torch mmsw',
        f'f"{NEEDLE}"\n    "mmsw is not there"',
        'python -m ' + NEEDLE + '`mmsw`.',
        'needs mmsw' + '[pretrain]',
        'uv pip' + ' install mmsw',
        'mim' + ' install mmsw',
    ],
)
def test_an_order_by_name_is_found(text: str) -> None:
    assert offences(text)


@pytest.mark.parametrize(
    'text',
    [
        NEEDLE + "--no-build-isolation '.[openmmlab]'",
        NEEDLE + '-e . in the source tree of mmsw',
        NEEDLE + './mmsw',
        'install mmsw again',
        NEEDLE + 'mmsw/',
        'install mmsw with `' + NEEDLE + '--no-build-isolation .`',
        'cd mmsw && ' + NEEDLE + '.',
    ],
)
def test_installing_from_the_checkout_is_none(text: str) -> None:
    assert not offences(text)


def test_nothing_is_installed_by_a_name_of_the_index() -> None:
    files = text_files()
    assert len(files) > 200
    found = {
        str(path.relative_to(ROOT)): bad
        for path in files
        if (bad := offences(path.read_text(encoding='utf-8')))
    }
    assert not found


def test_hint_in_a_checkout() -> None:
    assert how_to_install('openmmlab') == (
        f"in {ROOT} run `make setup` or `pip install --no-build-isolation '.[openmmlab]'`"
    )
    assert 'make setup STACK=onedl' in how_to_install('onedl')
    assert how_to_install('demo') == f"in {ROOT} run `pip install --no-build-isolation '.[demo]'`"


def test_hint_of_an_installed_package_names_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_hint, '__file__', str(tmp_path / 'mmsw' / 'install_hint.py'))
    monkeypatch.setattr(
        importlib.metadata,
        'packages_distributions',
        lambda: {'mmsw': ['a-stranger', 'ours'], 'numpy': ['numpy']},
    )
    requires = {
        'a-stranger': ['requests'],
        'ours': [
            'torch>=2.4',
            'mmengine==0.10.7; extra == "openmmlab"',
            "numpy<2 ; extra == 'openmmlab'",
            'mmengine==1.0; extra == "onedl"',
        ],
    }
    monkeypatch.setattr(importlib.metadata, 'requires', requires.get)
    assert how_to_install('openmmlab') == (
        "`pip install --no-build-isolation mmengine==0.10.7 'numpy<2'`"
    )
    # no metadata, or none that knows the extra
    expected = "in a checkout of mmsw run `pip install --no-build-isolation '.[taichi]'`"
    assert how_to_install('taichi') == expected
    monkeypatch.setattr(importlib.metadata, 'packages_distributions', dict)
    assert how_to_install('taichi') == expected


def test_environment_that_was_made_but_is_not_in_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = runpy.run_path(str(ROOT / 'tools' / '_clone.py'))['_activation']
    monkeypatch.setitem(function.__globals__, '_ROOT', tmp_path)
    assert function() == ''
    (tmp_path / '.venv/onedl').mkdir(parents=True)
    (tmp_path / '.venv/onedl/ready').touch()
    assert function() == f'run `source {tmp_path}/.venv/onedl/bin/activate` first, or, '
    monkeypatch.setattr('sys.prefix', str(tmp_path / '.venv/onedl'))
    assert function() == ''


def test_tool_without_its_packages_says_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / 'mmengine').mkdir()
    (tmp_path / 'mmengine' / '__init__.py').write_text(
        "raise ModuleNotFoundError(\"No module named 'mmengine'\", name='mmengine')"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / 'train.py'), '--help'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "error: No module named 'mmengine'; to get mmsw and its toolboxes, "
        + how_to_install('openmmlab')
    ]


WITHOUT_OPENMMLAB = """
import contextlib, io, runpy, sys
sys.modules.update(mmengine=None, mmcv=None)  # as if they were absent
sys.path.insert(0, 'tools')
for tool in sys.argv[1:]:
    sys.argv = [tool, '--help']
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            runpy.run_path(tool, run_name='__main__')
    except SystemExit as end:
        print(tool, end.code, said.getvalue(), end='')
"""


def test_every_tool_says_in_one_line_what_is_missing() -> None:
    tools = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'tools').glob('[!_]*.py'))
    tools.remove('tools/check_env.py')  # which runs without, and finds out what is missing
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_OPENMMLAB, *tools],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line.partition(' ')[0] for line in lines] == tools
    for line in lines:
        assert re.search(r" 2 error: No module named 'mm(engine|cv).*pip install", line)
    assert done.stderr == ''
