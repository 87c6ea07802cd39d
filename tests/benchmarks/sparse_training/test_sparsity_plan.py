"""What the benchmark of sparse training plans, and what it does not mix."""

from __future__ import annotations

import shutil

import pytest
from mmengine.registry import HOOKS
from sparse_training_helpers import finish, result_like, settings_for

from mmsw.apis import UsageError, load_config
from mmsw.benchmarks.runs import check_not_mixed, result_of
from mmsw.benchmarks.sparse_training.plan import plan_runs, run_config
from mmsw.engine.hooks import DynamicSparsityHook
from mmsw.json_file import write_json


def test_runs_come_seed_by_seed_and_dense_once_per_seed(cfg, data, tmp_path):
    settings = settings_for(tmp_path, sparsities=(0.3, 0.9), seeds=2)
    names = [run.name for run in plan_runs(cfg, data, settings)]
    first = ['dense', *(f'{m}-{s}' for m in ('static', 'filter', 'weight') for s in (0.3, 0.9))]
    assert names == [f'{name}-seed{seed}' for seed in range(2) for name in first]


def test_methods_differ_in_nothing_but_their_sparsity_hook(cfg, data, tmp_path):
    settings = settings_for(tmp_path, max_iters=64)
    dense, static, filters, weights = (
        run_config(cfg, run, settings) for run in plan_runs(cfg, data, settings)
    )
    hooks = [
        [hook for hook in item.custom_hooks if hook.type == 'DynamicSparsityHook']
        for item in (dense, static, filters, weights)
    ]
    assert [len(own) for own in hooks] == [0, 1, 1, 1]
    static_hook, filter_hook, weight_hook = (dict(own[0]) for own in hooks[1:])
    assert (filter_hook['sparsity'], filter_hook['seed']) == (0.5, 0)
    assert isinstance(HOOKS.build(filter_hook), DynamicSparsityHook)
    updates = (filter_hook['end_iter'] - 1) // filter_hook['interval']
    assert updates == 15  # within the first three quarters of the run, the rest trains what is kept
    assert updates % filter_hook['align_interval'] == 0  # the paths end with one mask
    assert static_hook == {**filter_hook, 'end_iter': 0}
    assert weight_hook == {**filter_hook, 'granularity': 'weight'}
    for item in (static, filters, weights):
        for key in set(item) - {'custom_hooks', 'work_dir'}:
            assert item[key] == dense[key], key
    assert dense.train_cfg == dict(type='IterBasedTrainLoop', max_iters=64, val_interval=64)
    assert dense.randomness.seed == 0
    assert dense.train_dataloader.num_workers == dense.val_dataloader.num_workers == 0


def test_length_and_place_of_the_masks_updates(tmp_path):
    assert settings_for(tmp_path, max_iters=252).end_iter == 189
    assert settings_for(tmp_path, max_iters=252).update_interval == 11
    assert settings_for(tmp_path, max_iters=2).update_interval == 1
    assert settings_for(tmp_path, max_iters=252, interval=20).update_interval == 20


def test_more_of_the_same_joins_and_other_settings_do_not(cfg, data, tmp_path):
    run = plan_runs(cfg, data, settings_for(tmp_path))[1]
    finish(run, result_like(run, 50.0))
    more = plan_runs(cfg, data, settings_for(tmp_path, sparsities=(0.3, 0.5), seeds=2))
    check_not_mixed(more)
    assert [item.name for item in more if result_of(item)] == [run.name]
    for other, named in (
        (dict(max_iters=9), r'max_iters 8 there, 9 now'),
        (dict(jobs=2), r'jobs 1 there, 2 now'),
        (dict(interval=5), r"hook .*'interval': 1.*there.*'interval': 5"),
    ):
        with pytest.raises(UsageError, match=named):
            check_not_mixed(plan_runs(cfg, data, settings_for(tmp_path, **other)))
    cfg.optim_wrapper.optimizer.lr = 1.0
    with pytest.raises(UsageError, match=r'config .* name another --out'):
        check_not_mixed(plan_runs(cfg, data, settings_for(tmp_path)))


def test_result_of_other_settings_is_refused(cfg, data, tmp_path):
    run = plan_runs(cfg, data, settings_for(tmp_path))[0]
    result = result_like(run, 50.0, digest='other')
    write_json(run.folder / 'result.json', 'training_result', result)
    with pytest.raises(UsageError, match=r'digest other instead of'):
        result_of(run)


def test_place_of_the_data_does_not_count_but_their_content_does(cfg, data, tmp_path):
    run = plan_runs(cfg, data / 'coco', settings_for(tmp_path))[0]
    copy = tmp_path / 'moved'
    shutil.copytree(data / 'coco', copy)
    moved = load_config(cfg, data_root=copy)
    assert plan_runs(moved, copy, settings_for(tmp_path))[0].settings == run.settings
    annotations = copy / 'annotations/instances_val2017.json'
    annotations.write_text(annotations.read_text() + '\n')
    changed = plan_runs(moved, copy, settings_for(tmp_path))[0].settings
    assert {key for key in changed if changed[key] != run.settings[key]} == {'data'}
