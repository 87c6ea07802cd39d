"""Tables of a benchmark in pages of the documentation, and what stands around them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsw.benchmarks.page import (
    BEGIN,
    END,
    begin_line,
    blocks_of,
    blocks_to_fill,
    end_line,
    figures_path,
    text_in,
    write_tables,
)
from mmsw.benchmarks.transcribed import parts_of, transcribed_text
from mmsw.errors import UsageError

TWO = ''.join(f'{begin_line(name)}\n\nold {name}\n{end_line(name)}\n\n' for name in ('a-1', 'b'))


def test_a_page_without_a_place(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    with pytest.raises(UsageError, match=r'page\.md does not exist'):
        write_tables(page, '', 'benchmark_export', {})
    page.write_text(f'{END}\n{BEGIN}\n', encoding='utf-8')
    with pytest.raises(UsageError, match=r'page\.md has no lines'):
        write_tables(page, '', 'benchmark_export', {})
    assert page.read_text(encoding='utf-8') == f'{END}\n{BEGIN}\n'
    assert not figures_path(page).exists()


def test_what_is_around_the_tables_stays(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text(f'# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n', encoding='utf-8')
    write_tables(page, 'new\n', 'benchmark_export', dict(rows=[1]))
    told = page.read_text(encoding='utf-8')
    assert told == f'# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nThe end.\n'
    beside = json.loads(figures_path(page).read_text(encoding='utf-8'))
    assert beside.pop('made').keys() == {'command', 'commit', 'date', 'packages'}
    assert beside == dict(format='mmsw.benchmark_export/1', rows=[1])


def test_blocks_of_one_page_do_not_touch_each_other(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text(f'{TWO}The end.\n', encoding='utf-8')
    write_tables(page, 'new\n', 'benchmark_export', dict(rows=[1]), 'b')
    assert page.read_text(encoding='utf-8') == f'{TWO}The end.\n'.replace('old b', 'new\n')
    assert (text_in(page, 'a-1'), text_in(page, 'b')) == ('old a-1', 'new\n')
    assert [path.name for path in sorted(tmp_path.rglob('*.*'))] == ['page.b.json', 'page.md']
    with pytest.raises(UsageError, match=r'no lines <!-- tables: begin --> and'):
        write_tables(page, 'new\n', 'benchmark_export', {})


def test_names_of_blocks(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text(TWO + f'{BEGIN}\n{END}\n', encoding='utf-8')
    assert blocks_of(page.read_text(encoding='utf-8')) == ['a-1', 'b', '']
    assert figures_path(page, 'a-1').name == 'page.a-1.json'
    assert blocks_to_fill(page, ['b', 'c', '']) == ['b', '']
    with pytest.raises(UsageError, match=r'no line <!-- tables c: begin --> or <!-- tables d: b'):
        blocks_to_fill(page, ['c', 'd'])
    page.write_text(f'{begin_line("a")}\n', encoding='utf-8')
    with pytest.raises(UsageError, match=r'and <!-- tables a: end -->'):
        blocks_to_fill(page, ['a'])


def test_tables_from_a_page_come_back() -> None:
    text = 'Of a day.\n\n| a | b | c |\n| --- | ---: | ---: |\n| x | 1.0 |  |\n\n> 3 are\n> more.\n'
    parts = parts_of(text)
    assert parts[1] == dict(head=['a', 'b', 'c'], figures=2, rows=[['x', '1.0', '']])
    assert transcribed_text(dict(parts=parts)) == text
    padded = '| a   |  b |\n|-----|----|\n| xyz | 10 |\n'
    assert transcribed_text(dict(parts=parts_of(padded))).splitlines()[1] == '| --- | --- |'
