"""tools/benchmark_sparsity.py as a user calls it, and starts it again."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from benchmark_sparsity import parse_args
from sparse_training_helpers import TOOL, call, settings_for
from study_helpers import assert_one_line_and_nothing_left

from mmsw.benchmarks.sparse_training.plan import plan_runs
from mmsw.checkpoint import load_checkpoint_file
from mmsw.json_file import read_json


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--methods', 'dense,rigl'], r"methods must be some of dense,.*\['rigl'\]"),
        (['--methods', 'static,static'], '--methods static,static names one twice'),
        (['--sparsity', '0.5,half'], "numbers with commas between them, got '0.5,half'"),
        (['--sparsity', '0.5,1'], 'sparsity must be between 0 and 1, got 1 '),
        (['--sparsity', '30'], 'sparsity must be between 0 and 1, got 30 .*0.3'),
        (['--sparsity', '0.5,0.50'], '--sparsity 0.5,0.5 names one twice'),
        (['--seeds', '0'], 'seeds must be at least 1, got 0'),
        (['--max-iters', '1'], 'max iterations must be at least 2, got 1'),
        (['--interval', '0'], 'interval must be at least 1, got 0'),
        (['--jobs', '0'], 'jobs must be at least 1, got 0'),
        (['--jobs', '4096'], 'jobs must be at most the .* processors here, got 4096'),
        (['--config', 'none.py'], r'none\.py does not exist'),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert_one_line_and_nothing_left(TOOL, arguments, message, capsys)


def test_rules_concern_what_is_exchanged(cfg, data, tmp_path):
    settings = settings_for(tmp_path, methods=('dense', 'static', 'filter'))
    ruled = replace(settings, rules={'redistribution': 'momentum'})
    plain, changed = (
        {run.method: run.settings['hook'] for run in plan_runs(cfg, data, one)}
        for one in (settings, ruled)
    )
    assert changed['filter'] == {**plain['filter'], 'redistribution': 'momentum'}
    assert {**changed, 'filter': plain['filter']} == plain
    args = parse_args(['--out', 'x', '--prune', 'set'])
    assert (args.prune, args.redistribution) == ('set', None)


def test_missing_data_of_another_layout_are_named(mini, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    arguments = ['--config', mini, '--data', tmp_path / 'empty', '--out', tmp_path / 'out']
    assert call(*arguments) == 2
    assert re.search(r'error: .*empty/coco does not exist', capsys.readouterr().err)
    assert not (tmp_path / 'out').exists()


def test_dry_run_does_nothing(mini, data, tmp_path, capsys):
    out = tmp_path / 'out'
    assert call('--config', mini, '--data', data, '--out', out, '--jobs', 1, '--dry-run') == 0
    shown = capsys.readouterr().out
    assert '39 of 39 runs to do, 252 iterations each, 1 side by side; nothing was done' in shown
    assert f'data: {data}/coco\n' in shown
    assert call('--config', mini, '--out', out, '--seeds', 2, '--dry-run') == 0
    shown = capsys.readouterr().out
    assert '26 of 26 runs to do' in shown
    assert f'data: {out}/scenes/coco (absent)' in shown  # not what the config says
    assert not out.exists()


def test_failing_run_is_reported_and_the_others_go_on(
    mini, data, tmp_path, failing_trainings, capsys
):
    out = tmp_path / 'out'
    arguments = ['--config', mini, '--data', data, '--out', out, '--methods', 'dense', '--jobs', 1]
    assert call(*arguments, '--seeds', '2') == 1
    shown = capsys.readouterr().out
    assert shown.count('FAILED with exit code 3') == 2
    assert f'{out}/runs/dense-seed1/log.txt:\n    one\n    two\n' in shown
    report = (out / 'report.md').read_text()
    assert '| 0 of 2 | missing' in report
    assert 'FAILED: dense-seed0, exit code 3' in report
    failed = read_json(out / 'results.json', 'benchmark_sparsity')['failed']
    assert [item['name'] for item in failed] == ['dense-seed0', 'dense-seed1']


@pytest.mark.slow
def test_all_methods_under_equal_conditions_and_only_what_is_missing(mini, data, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = ['--config', mini, '--data', data, '--out', out, '--seeds', 1]
    arguments += ['--sparsity', 0.7, '--jobs', 1, '--max-iters', 8]
    assert call(*arguments) == 0
    capsys.readouterr()
    results = {
        name: read_json(out / 'runs' / name / 'result.json', 'training_result')
        for name in ('dense-seed0', 'static-0.7-seed0', 'filter-0.7-seed0', 'weight-0.7-seed0')
    }
    dense, static, filters, weights = results.values()
    for name, result in results.items():
        for key in ('weights_at_start', 'rest_at_start', 'random_at_start', 'random_at_end'):
            assert result[key] == dense[key], (name, key)
        for key in ('first_batches', 'last_batch'):
            assert result[key] == dense[key], (name, key)
        assert result['kept'] == result['kept_at_start'] == result['kept_wanted'], name
        assert result['pruned_but_not_zero'] == 0
        assert result['iterations_timed'] == 7
        assert result['threads'] == 1
        assert result['held_out'] > 3
        assert 0 <= result['accuracy'] <= 100
    assert len(set(dense['first_batches'])) == 3
    assert static['masks_at_start'] == filters['masks_at_start'] != weights['masks_at_start']
    assert dense['exchanged'] == static['exchanged'] == 0 < filters['exchanged']
    assert weights['exchanged'] > 0
    assert dense['filters_kept'] == dense['filters']
    assert static['filters_kept'] == filters['filters_kept'] < 0.35 * filters['filters']
    assert weights['filters_kept'] > filters['filters_kept']
    zeros = 0
    saved = load_checkpoint_file(out / 'runs/filter-0.7-seed0/final.pth')['state_dict']
    for key, value in saved.items():
        if '.paths.' in key and key.endswith('.weight'):
            zeros += int((value == 0).sum())
    assert zeros == filters['weights'] - filters['weights_kept'] > 0
    found = {
        name: read_json(out / 'runs' / name / 'operator.json', 'training_operator')
        for name in results
    }
    assert found['dense-seed0']['work_left'] == 1.0 > found['static-0.7-seed0']['work_left']
    assert all(item['forward']['ratio'] > 0 for item in found.values())
    report = (out / 'report.md').read_text()
    assert 'NOT' not in report
    assert (out / 'sparse_training.png').is_file()

    kept = (out / 'runs/dense-seed0/result.json').stat().st_mtime_ns
    (out / 'runs/static-0.7-seed0/result.json').unlink()
    assert call(*arguments) == 0
    shown = capsys.readouterr().out
    assert '3 of 4 runs are finished already' in shown
    assert 'timing the operators of 1 runs' in shown
    assert (out / 'runs/dense-seed0/result.json').stat().st_mtime_ns == kept
    again = read_json(out / 'runs/static-0.7-seed0/result.json', 'training_result')
    for key in ('accuracy', 'loss', 'masks_at_start', 'kept'):
        assert again[key] == static[key], key
    assert call(*arguments[:-1], 9) == 2
    assert re.search('max_iters 8 there, 9 now', capsys.readouterr().err)
