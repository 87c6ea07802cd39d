"""What ``--help`` of every tool prints: whole, in one form, with examples that the tool takes."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = sorted(path.stem for path in (ROOT / 'tools').glob('[!_]*.py'))


def parser_of(name: str) -> Callable:
    return runpy.run_path(str(ROOT / 'tools' / f'{name}.py'))['parse_args']


def help_of(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    monkeypatch.setenv('COLUMNS', '100')
    monkeypatch.setattr('sys.argv', [f'{name}.py'])
    with pytest.raises(SystemExit, match=r'^0$'):
        parser_of(name)(['--help'])
    return capsys.readouterr().out


def examples(text: str) -> list[list[str]]:
    """Words of each example at the end of a help text."""
    block = text.partition('\nExamples:\n')[2]
    return [shlex.split(line) for line in block.splitlines()]


@pytest.mark.parametrize('name', TOOLS)
def test_help(name: str, monkeypatch, capsys) -> None:
    text = help_of(name, monkeypatch, capsys)
    assert str(ROOT) not in text
    assert max(len(line) for line in text.splitlines()) <= 100
    options = text.partition('\noptions:\n')[2].partition('\n\n')[0]
    for entry in re.split(r'\n  (?=\S)', options):
        # A default is told as "(default: X)", not as "(X)".
        assert not re.search(r'\((?!default)[\d.,x ]+\)$', ' '.join(entry.split())), entry
        lines = entry.strip().split('  ', maxsplit=1)
        assert len(lines) == 2 or '\n' in entry, f'{entry} says nothing'
    assert examples(text), 'no example'


@pytest.mark.parametrize('name', TOOLS)
def test_examples_are_taken(name: str, monkeypatch, capsys) -> None:
    parse, calls = parser_of(name), examples(help_of(name, monkeypatch, capsys))
    for words in calls:
        assert words[:2] == ['python', f'tools/{name}.py']
        parse(words[2:])
        for word in words[2:]:
            assert not word.startswith('configs/') or (ROOT / word).is_file()


def test_old_name_of_network_version_still_works() -> None:
    parse = parser_of('benchmark_ops')
    for option in ('--network-version', '--version'):
        assert parse(['--out', 'DIR', option, 'v1']).versions == ['v1']
    assert parse(['--out', 'DIR']).versions is None


@pytest.mark.parametrize('name', ['benchmark_model', 'benchmark_ops'])
def test_benchmarks_of_speed_share_their_sizes(name: str) -> None:
    parse = parser_of(name)
    words = '--out DIR --device cuda --crop 64 96 --batch 2 --threads 1 4 --only one two'
    given = vars(parse(words.split()))
    common = dict(out='DIR', device='cuda', crops=[64, 96], batches=[2], threads=[1, 4])
    expected = {**common, 'only': ['one', 'two']}
    assert {key: given[key] for key in expected} == expected
    left_out = vars(parse(['--out', 'DIR']))
    assert [left_out[key] for key in ('crops', 'batches', 'threads', 'only')] == [None] * 4
