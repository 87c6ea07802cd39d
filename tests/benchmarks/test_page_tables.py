"""Tables of a benchmark in a page of the documentation: a page without a place for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmsw.benchmarks.page import BEGIN, END, write_tables
from mmsw.errors import UsageError


def test_a_page_without_a_place(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    with pytest.raises(UsageError, match=r'page\.md does not exist'):
        write_tables(page, '', 'benchmark_export', {})
    page.write_text(f'{END}\n{BEGIN}\n', encoding='utf-8')
    with pytest.raises(UsageError, match=r'page\.md has no lines'):
        write_tables(page, '', 'benchmark_export', {})
    assert page.read_text(encoding='utf-8') == f'{END}\n{BEGIN}\n'
    assert not page.with_suffix('.json').exists()


def test_what_is_around_the_tables_stays(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text(f'# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n', encoding='utf-8')
    write_tables(page, 'new\n', 'benchmark_export', dict(rows=[1]))
    told = page.read_text(encoding='utf-8')
    assert told == f'# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nThe end.\n'
    beside = json.loads(page.with_suffix('.json').read_text(encoding='utf-8'))
    assert beside == dict(format='mmsw.benchmark_export/1', rows=[1])
