"""The tables of the documentation are those of the figures beside it, all of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from run_tool import ROOT

from mmsw.benchmarks.figures.blocks import problems_of
from mmsw.benchmarks.figures.jobs import JOBS
from mmsw.benchmarks.page import blocks_of, figures_path, read_figures, text_in

DOCS = ROOT / 'docs'
PAGES = sorted(DOCS.rglob('*.md'))
ALL_BLOCKS = [
    (page, name) for page in PAGES for name in blocks_of(page.read_text(encoding='utf-8'))
]
BLOCKS = [place for place in ALL_BLOCKS if text_in(*place).strip()]  # the others wait for a run
EMPTY = [place for place in BLOCKS if not re.search(r'\d', text_in(*place))]  # not measured yet
MEASURED = re.compile(
    r'mIoU|\bAP\b|\bms\b|s / iteration|seconds per|\bMiB\b|GMAC|accuracy|top-1|±|\d%|multiply-adds'
    r'|\d passed|times faster|\d\.\d+ s\b'
)
# Tables that look as if they had measured figures, and stand in no block: page and how it begins.
OUTSIDE = {
    ('benchmarks.md', '| question |'): 'commands, with rough durations',
    ('checkpoints.md', '| the file has |'): 'a limit of the loader',
    ('complexity.md', "| | SLaK's pair |"): 'formulas',
    ('concepts.md', '| term |'): 'a glossary',
    ('data.md', '| what | result |'): 'a limit of the checks',
    ('index.md', '| network |'): 'published by others',
    (
        'model_zoo.md',
        '| config |',
    ): 'tools/make_model_zoo.py --check compares it with the metafiles',
    ('model_zoo.md', '| network |'): 'published by others; compared in the same way',
    ('pretraining.md', '| config |'): 'settings of configs',
    ('real_data.md', '| config in `configs/'): 'names of configs',
    ('real_images.md', '| published network |'): 'published by others',
    ('reference/index.md', '| package |'): 'names',
    ('reference/tools.md', '| tool |'): 'names',
    ('training.md', '| line |'): 'what lines of the log mean',
    ('training.md', '| name |'): 'what names in the log mean',
    ('versions.md', '| Python |'): 'test runs, with counts of tests',
}
# Blocks that no job fills.
STANDING = {
    ('ablations.md', 'widths'): 'counted by the code block above it',
    ('backend_internals.md', 'gpu-model'): 'computed by mmsw.benchmarks.operator.gpu_model',
    ('backend_internals.md', 'layers-avx512'): 'of another machine, without a command of its own',
    ('backend_internals.md', 'registers'): 'printed by tests/ops/test_cuda_build.py, needs nvcc',
    ('backends.md', 'operators-h200'): 'a second GPU',
    ('complexity.md', 'published-counts'): 'tests/analysis recomputes it',
    ('complexity.md', 'published-differences'): 'tests/analysis recomputes it',
    ('complexity.md', 'work-left'): 'tests/analysis recomputes it',
    ('own_data.md', 'own-data'): 'needs data that are not ours',
    ('real_data.md', 'real-data'): 'needs data that are not ours',
    ('slak.md', 'counts'): 'counted by the code block above it',
    ('speed.md', 'graphs-gpu'): 'no tool measures CUDA graphs',
    ('speed.md', 'networks-avx512'): 'of another machine',
    ('training.md', 'waiting-threads'): 'two trainings at once, by hand',
}


def outside(text: str) -> list[str]:
    """Tables with measured figures that stand in no block and in no code."""
    for name in blocks_of(text):
        label = f'tables {name}' if name else 'tables'
        pattern = rf'<!-- {label}: begin -->.*?<!-- {label}: end -->'
        text = re.sub(pattern, '', text, flags=re.DOTALL)
    text = re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
    tables = re.findall(r'(?:^\|.*\n)+', text, flags=re.MULTILINE)
    return [table for table in tables if MEASURED.search(table)]


def label(place: tuple[Path, str]) -> str:
    page, name = place
    return f'{page.name} {name}'.strip()


@pytest.fixture
def copied(tmp_path: Path):
    """Copies of a page and of its figures, which a test may change."""

    def copy(page: Path) -> Path:
        shutil.copyfile(page, tmp_path / page.name)
        for name in blocks_of(page.read_text(encoding='utf-8')):
            figures = figures_path(page, name)
            copied = figures_path(tmp_path / page.name, name)
            copied.parent.mkdir(exist_ok=True)
            shutil.copyfile(figures, copied)
        return tmp_path / page.name

    return copy


def test_there_are_blocks() -> None:
    assert len(BLOCKS) > 35
    assert len(set(BLOCKS)) == len(BLOCKS)  # none of a page has the name of another one


def test_what_is_not_measured_says_so() -> None:
    assert all(text_in(*place).startswith('No figures of ') for place in EMPTY)


@pytest.mark.parametrize('page', sorted({page for page, _ in BLOCKS}), ids=lambda page: page.name)
def test_tables_are_those_of_the_figures(page: Path) -> None:
    assert problems_of(page) == []


@pytest.mark.parametrize('place', [place for place in BLOCKS if place not in EMPTY], ids=label)
def test_a_figure_edited_by_hand_is_found(place: tuple[Path, str], copied) -> None:
    page, name = place
    copy, shown = copied(page), text_in(page, name)
    last = list(re.finditer(r'\d', shown))[-1]
    other = str((int(last[0]) + 1) % 10)
    edited = shown[: last.start()] + other + shown[last.end() :]
    text = copy.read_text(encoding='utf-8')
    assert text.count(shown) == 1
    copy.write_text(text.replace(shown, edited), encoding='utf-8')
    (problem,) = problems_of(copy)
    assert problem.startswith(f'{copy.name}, block {name or "tables"}: the figures give')
    assert problem.split('the page has ')[1].strip('\'"') in edited


@pytest.mark.parametrize('place', BLOCKS, ids=label)
def test_figures_say_where_they_come_from(place: tuple[Path, str]) -> None:
    found = read_figures(*place)
    made, about = found['made'], found['machine']
    assert made['command']
    assert not made.get('quick')
    assert re.fullmatch(r'[0-9a-f]{7,10}(-dirty)?|unknown', made['commit'])
    if found.get('transcribed'):
        assert about['told']
        assert re.match(r'\d{4}-\d\d-\d\d|not yet', made['date'])
    else:
        assert {'cpu', 'torch', 'date', 'device'} <= about.keys()
        assert made['commit'] != 'unknown' or re.fullmatch('[0-9a-f]{7}', made['in_docs_since'])


def test_a_page_without_its_figures_is_found(copied) -> None:
    page = copied(DOCS / 'transfer.md')
    figures_path(page, 'detection').unlink()
    (problem,) = problems_of(page)
    assert 'transfer.detection.json cannot be read' in problem


def test_every_table_of_figures_is_in_a_block() -> None:
    found = set()
    for page in PAGES:
        own = str(page.relative_to(DOCS))
        for table in outside(page.read_text(encoding='utf-8')):
            known = [key for key in OUTSIDE if key[0] == own and table.startswith(key[1])]
            assert known, f'{own}: this table stands in no block:\n{table}'
            found.update(known)
    assert found == set(OUTSIDE)


def test_what_a_table_of_figures_is() -> None:
    table = '| network | mIoU |\n| --- | ---: |\n| ours | 79.68 |\n'
    block = f'<!-- tables a: begin -->\n\n{table}\n<!-- tables a: end -->\n'
    assert outside(f'text\n\n{table}\nmore\n\n{block}') == [table]
    assert outside(f'```text\n{table}```\n\n| name | meaning |\n| --- | --- |\n| a | 3 |\n') == []


def test_every_block_belongs_to_a_job() -> None:
    filled = {(page, name) for job in JOBS for page, name in job.blocks}
    there = {(str(page.relative_to(DOCS)), name) for page, name in ALL_BLOCKS}
    assert there - filled == set(STANDING)
    assert {place for place in filled - there if (DOCS / place[0]).is_file()} == set()
