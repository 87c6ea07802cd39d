"""The notebooks of docs/tutorials: as git keeps them, and what they type. `make docs` runs them."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / 'docs' / 'tutorials').glob('*.ipynb'))
SHELL = '%%bash\n'


def cells(notebook: Path, kind: str) -> list[dict]:
    text = json.loads(notebook.read_text(encoding='utf-8'))
    return [cell for cell in text['cells'] if cell['cell_type'] == kind]


def shell_cells(notebook: Path) -> list[str]:
    codes = [''.join(cell['source']) for cell in cells(notebook, 'code')]
    return [code[len(SHELL) :] for code in codes if code.startswith(SHELL)]


def tool_calls() -> list[tuple[str, str, list[str]]]:
    """Notebook, tool and arguments of each call of a tool."""
    return [
        (notebook.name, Path(words[1]).stem, words[2:])
        for notebook in NOTEBOOKS
        for code in shell_cells(notebook)
        for line in code.replace('\\\n', ' ').splitlines()
        for words in [shlex.split(line.partition(' | ')[0])]
        if words[:1] == ['python']
    ]


def test_both_tutorials_are_there_and_call_tools() -> None:
    assert [path.stem for path in NOTEBOOKS] == ['own_detection', 'own_segmentation']
    called = {(notebook, tool) for notebook, tool, _ in tool_calls()}
    for notebook in NOTEBOOKS:
        for tool in ('check_dataset', 'print_config', 'train', 'test', 'predict'):
            assert (notebook.name, tool) in called


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_hold_no_results(notebook: Path) -> None:
    text = json.loads(notebook.read_text(encoding='utf-8'))
    assert (text['nbformat'], text['nbformat_minor']) == (4, 5)
    assert text['metadata']['kernelspec']['name'] == 'python3'
    names = [cell['id'] for cell in text['cells']]
    assert len(set(names)) == len(names)
    for cell in cells(notebook, 'code'):
        assert cell['outputs'] == []
        assert cell['execution_count'] is None
        assert cell['metadata'] == {}


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda path: path.name)
def test_cells_are_well_formed(notebook: Path) -> None:
    for cell in cells(notebook, 'code'):
        code = ''.join(cell['source'])
        if not code.startswith(SHELL):
            compile(code, f'{notebook.name}, {cell["id"]}', 'exec')
    for code in shell_cells(notebook):
        done = subprocess.run(
            ['bash', '-n'], input=code, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert any('assert scores[' in ''.join(cell['source']) for cell in cells(notebook, 'code'))


@pytest.mark.parametrize(('notebook', 'tool', 'arguments'), tool_calls(), ids=str)
def test_tools_take_what_notebooks_type(notebook: str, tool: str, arguments: list[str]) -> None:
    parse = runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'))['parse_args']
    parse(arguments)


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda path: path.name)
def test_configs_of_notebooks_inherit_from_ours(notebook: Path) -> None:
    code = '\n'.join(''.join(cell['source']) for cell in cells(notebook, 'code'))
    (base,) = re.findall(r"_base_ = 'mmsw::(\w+\.py)'", code)
    assert (ROOT / 'configs' / base).is_file()
