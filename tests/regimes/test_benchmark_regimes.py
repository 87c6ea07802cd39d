"""tools/benchmark_regimes.py: a run, bad arguments, and the page that has its tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mmsw.apis.cli import run_measurement
from mmsw.benchmarks.page import BEGIN, END, figures_path
from mmsw.benchmarks.regimes import benchmark
from mmsw.benchmarks.regimes.benchmark import benchmark_regimes
from mmsw.benchmarks.regimes.regimes import CELLS, REGIMES, Cell
from mmsw.benchmarks.regimes.report import most_lost, page_text, problem_of
from mmsw.benchmarks.regimes.training import ITERATIONS, Outcome
from mmsw.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/sparse_regimes.md'
pytestmark = pytest.mark.filterwarnings('ignore:torch.utils.checkpoint. the use_reentrant')


def outcome_of(cell: Cell) -> Outcome:
    if REGIMES[cell.regime].refused:
        return Outcome(
            zeros=9,
            live=0,
            averaged=None,
            saved=0,
            files=0,
            whole=0,
            moved=0.0,
            refused='It cannot work.',
        )
    lost = 0 if cell.guarded else 7
    return Outcome(
        zeros=9, live=lost, averaged=None, saved=lost, files=2, whole=0, moved=1.0, refused=None
    )


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Cells have outcomes that nobody trained for; gives those that were asked for."""
    pytest.importorskip('mmseg', reason='mmseg: absent; it has the backbones')
    asked: list[Cell] = []

    def run_cells(cells: list[Cell], folder: Path, logs: Path) -> dict[Cell, Outcome]:
        asked.extend(cells)
        return {cell: outcome_of(cell) for cell in cells}

    monkeypatch.setattr(benchmark, 'run_cells', run_cells)
    return asked


def test_a_run(no_training: list[Cell], tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text(f'# Title\n\n{BEGIN}\nold\n{END}\n', encoding='utf-8')
    result = benchmark_regimes(tmp_path / 'out', only=['resnet/SGD/am', 'fsdp'], page=page)
    assert result['errors'] == []
    fsdp = [cell for cell in CELLS if cell.regime == 'fsdp']
    amp = Cell('resnet', 'SGD', 'amp')
    assert sorted(no_training) == sorted([*fsdp, amp, amp.control])
    written = json.loads((tmp_path / 'out/benchmark.json').read_text(encoding='utf-8'))
    assert written == {'format': 'mmsw.benchmark_regimes/1', **json.loads(json.dumps(result))}
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {
        'benchmark.json',
        'benchmark.md',
    }
    told = page.read_text(encoding='utf-8')
    assert told == f'# Title\n\n{BEGIN}\n\n{page_text(result)}\n{END}\n'
    assert '| mixed precision | – | – | 0 | 7 | – | – | 100% |' in told.splitlines()
    assert '- FSDP, 2 processes: "It cannot work."' in told.splitlines()


def test_zeros_that_are_lost_are_errors(
    no_training: list[Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cell = Cell('swin', 'sign', 'swa')
    found = {cell: {**outcome_of(cell), 'averaged': 3}, cell.control: outcome_of(cell.control)}
    monkeypatch.setattr(benchmark, 'run_cells', lambda *arguments: found)
    measure = lambda: benchmark_regimes(tmp_path, only=[str(cell)])  # noqa: E731
    assert run_measurement(measure, str(tmp_path)) == 1
    assert 'error: swin/sign/swa: 3 of 9 zeros are lost\n' in capsys.readouterr().err


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"such as shiftwise/AdamW/plain, got \['nothing'\]$"):
        benchmark_regimes(tmp_path / 'out', only=['nothing'])
    with pytest.raises(UsageError, match=r'no\.md does not exist'):
        benchmark_regimes(tmp_path / 'out', page=tmp_path / 'no.md')
    assert list(tmp_path.iterdir()) == []


def test_the_page_of_the_documentation_has_the_counts_beside_it() -> None:
    result = json.loads(figures_path(PAGE).read_text(encoding='utf-8'))
    text = PAGE.read_text(encoding='utf-8')
    assert f'{BEGIN}\n\n{page_text(result)}\n{END}' in text
    assert result['errors'] == []
    assert {row['cell'] for row in result['rows']} == set(map(str, CELLS))
    for row in result['rows']:
        assert problem_of(row) is None
        assert most_lost(row['outcome']) == 0
        assert (row['control'] is None) == REGIMES[row['regime']].refused


def test_the_page_names_what_is_trained() -> None:
    text = PAGE.read_text(encoding='utf-8')
    assert f'trains {"four" if ITERATIONS == 4 else ITERATIONS} iterations' in text
    for regime in REGIMES.values():
        name = re.sub(r', 2 processes$', '', regime.label)
        assert name == 'plain' or f'*{name}*' in text, name
