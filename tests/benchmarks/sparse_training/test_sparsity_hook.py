"""Runs of the benchmark of sparse training: stopped, and gone on with."""

from __future__ import annotations

import pytest
from sparse_training_helpers import settings_for

from mmsw.apis import build_runner
from mmsw.benchmarks.runs import result_of
from mmsw.benchmarks.sparse_training.hook import SparsityBenchmarkHook
from mmsw.benchmarks.sparse_training.plan import plan_runs, run_config


def stop(*_: object) -> None:
    raise RuntimeError('stopped')


def test_run_that_was_stopped_after_its_evaluation_goes_on(
    cfg, data, tmp_path, plain_config_text, monkeypatch
):
    results = []
    for name in ('whole', 'stopped'):
        settings = settings_for(tmp_path / name, methods=('filter',), max_iters=4)
        (run,) = plan_runs(cfg, data, settings)
        if name == 'stopped':
            with monkeypatch.context() as patch:
                patch.setattr(SparsityBenchmarkHook, 'result', stop)
                with pytest.raises(RuntimeError, match='stopped'):
                    build_runner(run_config(cfg, run, settings)).train()
            assert result_of(run) is None
        build_runner(run_config(cfg, run, settings), resume='auto').train()
        results.append(result_of(run))
    whole, stopped = results
    measured = {'seconds_per_iteration', 'wall_seconds', 'peak_memory', 'seconds_start'}
    for key in whole.keys() - measured - {'updates_share'}:
        assert stopped[key] == whole[key], key
    assert whole['exchanged'] > 0
