"""Statistics, tables and picture of the benchmark of sparse training, from made-up results."""

from __future__ import annotations

import math

import pytest
from sparse_training_helpers import finish, operator_like, result_like, settings_for
from study_helpers import ROOT, call_tool

from mmsw.benchmarks.redraw import redraw
from mmsw.benchmarks.runs import Failure, result_of
from mmsw.benchmarks.sparse_training import operator_time
from mmsw.benchmarks.sparse_training.plan import plan_runs
from mmsw.benchmarks.sparse_training.plot import draw
from mmsw.benchmarks.sparse_training.report import write_report
from mmsw.benchmarks.sparse_training.summary import (
    Cell,
    inexact,
    make_cells,
    unequal_conditions,
)
from mmsw.errors import UsageError
from mmsw.figure import METHODS
from mmsw.json_file import read_json, write_json

ACCURACY = {'dense': (80, 82, 84), 'static': (70, 74, 78), 'filter': (79, 81, 89)}
SECONDS = {'dense': (1.0, 2.0, 4.0), 'static': (1.0, 2.2, 4.8), 'filter': (1.1, 2.2, 4.4)}


@pytest.fixture
def settings(tmp_path):
    return settings_for(tmp_path, methods=('dense', 'static', 'filter'), seeds=3, jobs=2)


@pytest.fixture
def finished(cfg, data, settings):
    """Three methods with three seeds each, but for the last run."""
    made = plan_runs(cfg, data, settings)
    for run in made[:-1]:
        finish(run, result_like(run, ACCURACY[run.method][run.seed], SECONDS[run.method][run.seed]))
        ratio = {'dense': 1.01, 'static': 0.7, 'filter': 0.8}[run.method] + 0.1 * run.seed
        found = operator_like(run, ratio, 1 - 0.4 * (run.method != 'dense'))
        identity = operator_time._identity(run)
        write_json(run.folder / 'operator.json', 'training_operator', {'of': identity, **found})
    return made


def row(text: str, table: int, method: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith(f'| {method}')]
    return [cell.strip() for cell in lines[table].strip('|').split('|')]


def test_tables_hold_means_deviations_and_differences_by_seed(finished, settings):
    text = write_report(finished, settings, [])
    assert text == (settings.out / 'report.md').read_text()
    assert '8 of 9 runs finished' in text
    assert 'images held out: 40; 2 runs side by side' in text
    assert row(text, 0, 'dense') == [
        *('dense', '0%', '3', '82.00 ± 2.00', '–', '–', '100.0%', '100.0%', '25.0%')
    ]
    assert row(text, 0, 'static') == [
        *('static', '50%', '3', '74.00 ± 4.00', '-8.00 [-12.97, -3.03]', '–'),
        *('50.0%', '50.0%', '25.0%'),
    ]
    assert row(text, 0, 'filter') == [
        *(
            'filter',
            '50%',
            '2 of 3',
            '80.00 ± 1.41',
            '-1.00 [-1.00, -1.00]',
            '+8.00 [-4.71, 20.71]',
            '50.0%',
            '50.0%',
            '25.0%',
        )
    ]
    assert row(text, 1, 'static') == [
        *('static', '50%', '2.667 ± 1.943', '1.10 ± 0.10', '2.0%', '60.0%'),
        *('8.0', '0.80 ± 0.10', '8.0', '0.80 ± 0.10'),
    ]
    assert row(text, 1, 'dense')[-1] == '1.11 ± 0.10'
    assert '2 comparisons with dense, paired by seed (2 to 3 seeds)' in text
    assert 'excludes zero in 2: 50% pruned, static, accuracy: -8.00 [-12.97, -3.03]; 50%' in text
    assert '1 comparison with static, paired by seed (2 seeds)' in text
    assert text.count('includes zero in all: these runs show no difference.') == 1
    assert 'kept exactly the number' in text
    assert 'Runs of the same seed began with the same values' in text
    assert 'backend torch' in text


def test_json_holds_everything(finished, settings):
    failure = Failure(finished[-1], 3, finished[-1].folder / 'log.txt', 'tail')
    text = write_report(finished, settings, [failure])
    assert f'FAILED: {finished[-1].name}, exit code 3' in text
    found = read_json(settings.out / 'results.json', 'benchmark_sparsity')
    static = next(item for item in found['summary'] if item['method'] == 'static')
    half = 4.30265 * 2 / 3**0.5
    assert static['accuracy'] == {
        'mean': 74.0,
        'deviation': 4.0,
        'n': 3,
        'interval_95': pytest.approx([74 - 2 * half, 74 + 2 * half]),
    }
    assert static['accuracy_minus_dense'] == {
        'mean': -8.0,
        'deviation': 2.0,
        'n': 3,
        'interval_95': pytest.approx([-8 - half, -8 + half]),
    }
    exchanged = next(item for item in found['summary'] if item['method'] == 'filter')
    assert exchanged['accuracy_minus_static']['mean'] == 8.0
    assert 'accuracy_minus_static' not in static
    assert math.isclose(static['operator_forward']['mean'], 0.8)
    assert [run['result'] is None for run in found['runs']] == [False] * 8 + [True]
    assert found['failed'] == [{'name': finished[-1].name, 'code': 3}]


def test_what_is_not_exact_or_not_equal_is_named(finished):
    assert inexact(finished) == unequal_conditions(finished) == []
    for number, change in (
        (1, {'kept': 51}),
        (4, {'pruned_but_not_zero': 2}),
        (2, {'masks_at_start': 'z'}),
        (5, {'random_at_end': 'x', 'first_batches': ['f', 'y', 'h']}),
    ):
        run = finished[number]
        finish(run, {**result_of(run), **change})
    assert inexact(finished) == [
        'static-0.5-seed0 keeps 51, 50 at the start, of 50 wanted',
        'static-0.5-seed1 has 2 pruned weights that are not zero',
    ]
    assert unequal_conditions(finished) == [
        'filter-0.5-seed0 (unlike static-0.5-seed0 in masks_at_start)',
        'filter-0.5-seed1 (unlike dense-seed1 in random_at_end, first_batches)',
    ]


def test_operators_of_an_older_result_do_not_count(finished):
    run = finished[0]
    assert 0 in make_cells(finished)[0].operators
    finish(run, {**result_of(run), 'loss': 2.0})
    assert 0 not in make_cells(finished)[0].operators


def test_picture(finished, settings, tmp_path):
    pytest.importorskip('matplotlib', reason='matplotlib: absent; the picture needs it')
    write_report(finished, settings, [])
    assert redraw(settings.out) == settings.out / 'sparse_training.svg'
    assert (settings.out / 'sparse_training.png').read_bytes().startswith(b'\x89PNG')
    assert METHODS['static'].colour in (settings.out / 'sparse_training.svg').read_text()
    cells = make_cells(finished)
    path = tmp_path / 'picture.svg'
    assert not draw(cells[:1], path)  # nothing sparse is finished
    assert not path.exists()
    without = [Cell(cell.wanted, cell.results, cell.method, cell.sparsity, {}) for cell in cells]
    assert draw(without[1:], path)  # neither dense runs nor times of operators
    assert path.is_file()


def test_nothing_to_redraw(cfg, data, settings, tmp_path, capsys):
    with pytest.raises(UsageError, match=r'holds neither results\.json nor benchmark\.json'):
        redraw(tmp_path)
    write_report(plan_runs(cfg, data, settings), settings, [])
    assert call_tool(ROOT / 'tools/redraw_benchmark.py', settings.out) == 2
    assert 'results.json holds no finished results' in capsys.readouterr().err
    (settings.out / 'results.json').write_text('{"format": "mmsw.sparsity/1"}')
    with pytest.raises(UsageError, match=r"format is 'mmsw.sparsity/1', expected mmsw.benchmark"):
        redraw(settings.out)


def test_damaged_results_are_named(tmp_path):
    (tmp_path / 'results.json').write_text('{}', encoding='utf-8')
    with pytest.raises(UsageError, match=r"results\.json is not what .* KeyError: 'summary'"):
        redraw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['results.json']
