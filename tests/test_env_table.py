"""tools/check_env.py --table: the environment as a Markdown table."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import check_env
import pytest
import torch
from _env_table import environment_table

from mmsw.ops import available_backends
from mmsw.version import __version__

ROOT = Path(__file__).resolve().parents[1]
STACKS = (check_env.STACK_PACKAGES, check_env.ONEDL_PACKAGES)


def cells(table: str) -> dict[str, str]:
    """What the table says, by the names of its rows."""
    head, rule, *lines = table.splitlines()
    assert (head, rule) == ('| part | found |', '| --- | --- |')
    rows = [line.removeprefix('| ').removesuffix(' |').split(' | ') for line in lines]
    assert {len(row) for row in rows} == {2}
    assert len({name for name, _ in rows}) == len(rows)
    return dict(rows)


@pytest.fixture(scope='module')
def found() -> dict[str, str]:
    return cells(environment_table(STACKS, lambda: None))


def test_every_row_says_what_is_here(found: dict[str, str]) -> None:
    assert found['Python'] == f'{platform.python_version()} ({platform.python_implementation()})'
    assert found['torch'].startswith(f'{torch.__version__}, ')
    assert ('for CUDA' in found['torch']) == (torch.version.cuda is not None)
    assert found['numpy'] == check_env.installed_version('numpy')
    assert found['mmsw'].startswith(__version__)
    assert found['operators of mmcv'] == 'work'
    here = [name for name in (*STACKS[0], *STACKS[1]) if check_env.installed_version(name)]
    assert [found[name] for name in here] == [check_env.installed_version(name) for name in here]


def test_every_backend_has_a_row_with_its_reason(found: dict[str, str]) -> None:
    for name, here in available_backends().items():
        said = found[f'backend {name}']
        assert (said == 'runs') == (here is True)
        if here is not True:
            assert said.startswith(f'no: {here.split("; ")[0][:60]}')


def test_no_cell_names_a_folder_of_this_machine(found: dict[str, str]) -> None:
    text = ' '.join(found.values())
    assert sys.prefix not in text
    assert str(ROOT) not in text


def test_what_fails_is_written_into_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError(f'{ROOT}/a | b\nundefined symbol {"x" * 500}')

    monkeypatch.setitem(sys.modules, 'torch', None)  # as if it were absent
    monkeypatch.setitem(sys.modules, 'mmsw.ops', None)
    monkeypatch.setenv('PATH', '')
    monkeypatch.setenv('MMSW_BACKEND', 'torch')
    found = cells(environment_table((('no-such-stack',), ('nor-this',)), broken))
    assert found['torch'].startswith('fails: ModuleNotFoundError: ')
    assert found['backends of mmsw'].startswith('cannot be asked: ModuleNotFoundError: ')
    assert found['no-such-stack'] == 'not installed'
    assert 'nor-this' not in found
    said = found['operators of mmcv']
    assert said.startswith(r'fails: RuntimeError: ./a \| b undefined symbol x')
    assert len(said) == 300
    assert found['nvcc'] == found['C++ compiler'] == 'not found'
    assert 'MMSW_BACKEND=torch' in found['variables']


def test_the_table_is_printed_and_nothing_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(check_env, 'find_problems', lambda modules: ['anything'])
    monkeypatch.setattr(check_env, 'ops_problem', lambda: 'ImportError: mmcv._ext')
    assert check_env.main(['--table']) == 0
    assert cells(capsys.readouterr().out)['operators of mmcv'] == 'ImportError: mmcv._ext'


def test_the_page_of_versions_names_what_is_asked_for() -> None:
    page = (ROOT / 'docs' / 'versions.md').read_text(encoding='utf-8')
    asked = page.partition('## What was run')[0]
    for stack in ('openmmlab', 'onedl'):
        for name, pinned in pins(stack):
            assert f'{name} {pinned}' in asked
    (torch_of_set_up,) = [pinned for name, pinned in pins('build') if name == 'torch']
    assert f'`make setup` takes {torch_of_set_up}' in asked
    oldest = '.'.join(map(str, check_env.MIN_TORCH))
    assert f'| torch | {oldest} or newer; ' in asked
    assert f'torch>={oldest}' in requirements('runtime')
    python = '.'.join(map(str, check_env.MIN_PYTHON))
    assert f'| Python | {python} or newer; ' in asked
    assert f"python_requires='>={python}'" in (ROOT / 'setup.py').read_text(encoding='utf-8')
    (taichi,) = [line for line in requirements('taichi') if line.startswith('taichi')]
    assert f'| Taichi | {taichi.removeprefix("taichi>=")} or newer, ' in asked


def requirements(name: str) -> list[str]:
    return (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()


def pins(name: str) -> list[tuple[str, str]]:
    found = [line.split('==') for line in requirements(name) if '==' in line]
    assert found
    return [(package, version) for package, version in found]
