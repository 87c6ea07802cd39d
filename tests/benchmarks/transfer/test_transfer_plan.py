"""The plan of a transfer benchmark: schedules, digests, checkpoints to start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS
from study_helpers import ROOT
from transfer_helpers import COCO_RECIPE, RECIPE, RESNET, settings_for

from mmsw.apis import UsageError, load_config
from mmsw.apis.backbone import build_backbone
from mmsw.apis.schedule import fit_schedule
from mmsw.benchmarks.digests import source_digest
from mmsw.benchmarks.runs import check_not_mixed, result_of
from mmsw.benchmarks.transfer.networks import Network, read_networks
from mmsw.benchmarks.transfer.plan import plan_runs, run_config
from mmsw.benchmarks.transfer.report import make_rows
from mmsw.benchmarks.transfer.starts import find_starts, pretraining_digest
from mmsw.demo import make_demo_data
from mmsw.json_file import write_json
from mmsw.whole_file import write_text

for _package in ('mmseg', 'mmdet'):
    pytest.importorskip(_package, reason=f'{_package}: absent; configs need it')


def test_schedule_in_iterations_keeps_its_shape():
    cfg = load_config(ROOT / 'configs/upernet_sw_t_ade20k.py')
    fit_schedule(cfg, 16000, 6)
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=16000, val_interval=2667)
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 150)
    assert (decay.begin, decay.end) == (150, 16000)
    assert cfg.default_hooks.checkpoint is None


@pytest.mark.parametrize(('budget', 'warm_up'), [(36000, 500), (360, 36)])
def test_schedule_in_epochs_becomes_one_in_iterations(budget, warm_up):
    cfg = load_config(COCO_RECIPE)
    fit_schedule(cfg, budget, 4)
    linear, steps = cfg.param_scheduler
    assert (linear.by_epoch, linear.end) == (False, warm_up)
    assert steps.by_epoch is False
    assert list(steps.milestones) == [budget * 27 // 36, budget * 33 // 36]
    assert steps.end == budget
    assert cfg.train_cfg == dict(
        type='IterBasedTrainLoop', max_iters=budget, val_interval=budget // 4
    )
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert cfg.log_processor.by_epoch is False


@pytest.mark.parametrize('path', [RECIPE, COCO_RECIPE], ids=['iterations', 'epochs'])
@pytest.mark.parametrize('budget', [1, 4, 30, 400])
def test_learning_rate_rises_to_the_recipes_whatever_the_budget(path, budget):
    cfg = load_config(path)
    fit_schedule(cfg, budget, 6)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [
        PARAM_SCHEDULERS.build({**item, 'optimizer': optimizer}) for item in cfg.param_scheduler
    ]
    rates = []
    for _ in range(budget):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert 0.85 < max(rates) < 1.001
    if budget == 400:
        assert rates[0] < 0.01
        assert rates[-1] < 0.02


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({'type': 'DynamicSparsityHook', 'end_iter': 12000}, {'end_iter': 300}),
        ({'type': 'mmsw.DynamicSparsityHook', 'end_iter': 12000}, {'end_iter': 300}),
        ({'type': 'DynamicSparsityHook', 'end_iter': 0}, {'end_iter': 0}),  # nothing is exchanged
        ({'type': 'DynamicSparsityHook', 'end_iter': 10}, {'end_iter': 1}),
        ({'type': 'DynamicSparsityHook'}, {}),
        (
            {'type': 'GradualPruningHook', 'begin': 1600, 'end': 12000, 'interval': 50},
            {'begin': 40, 'end': 300, 'interval': 50},
        ),
        ({'type': 'GradualPruningHook', 'begin': 0, 'end': 16000}, {'begin': 0, 'end': 400}),
        ({'type': 'OtherHook', 'begin': 1600, 'end_iter': 9}, {'begin': 1600, 'end_iter': 9}),
    ],
)
def test_hooks_that_prune_end_at_the_same_share_of_the_run(given, expected):
    cfg = load_config(RECIPE)
    cfg.train_cfg.max_iters = 16000
    cfg.custom_hooks = [dict(given)]
    fit_schedule(cfg, 400, 1)
    assert dict(cfg.custom_hooks[0]) == {'type': given['type'], **expected}


def test_hooks_that_prune_count_iterations_where_a_schedule_counts_epochs():
    cfg = load_config(COCO_RECIPE)
    hook = dict(type='DynamicSparsityHook', end_iter=12000)
    cfg.custom_hooks = [hook]
    fit_schedule(cfg, 400, 1)
    assert dict(cfg.custom_hooks[0]) == hook


def test_settings_that_decide_the_result_are_in_the_digest(network, data, tmp_path):
    def digest_of(own: Network = network, **changes: Any) -> str:
        return plan_runs([own], settings_for(tmp_path, **changes), {})[0].digest

    plain = digest_of()
    assert digest_of() == plain
    for change in (
        {'budgets': {'seg': 5}},
        {'nproc': 2},
        {'evaluations': 3},
        {'amp': True},
        {'auto_scale_lr': True},
    ):
        assert digest_of(**change) != plain, change
    two = plan_runs([network], settings_for(tmp_path, seeds=2), {})
    assert two[0].digest == plain
    assert two[1].digest != plain
    faster = read_networks(
        [('seg', Path(network.cfg.filename))], {'seg': data}, {'optim_wrapper.optimizer.lr': 1.0}
    )
    assert digest_of(faster[0]) != plain


def test_moved_data_are_the_same_and_other_data_are_not(network, mini, data, tmp_path):
    moved = tmp_path / 'elsewhere'
    moved.symlink_to(data)
    same = read_networks([(None, mini)], {'seg': moved}, {})[0]
    make_demo_data(tmp_path / 'other', num_train=12, num_val=3, size=96, seed=1)
    other = read_networks([(None, mini)], {'seg': tmp_path / 'other'}, {})[0]
    settings = settings_for(tmp_path)
    digests = [plan_runs([item], settings, {})[0].digest for item in (network, same, other)]
    assert digests[0] == digests[1] != digests[2]
    starts = [pretraining_digest(item, 'dense', settings) for item in (network, same, other)]
    assert starts[0] == starts[1] != starts[2]


def test_both_demo_configs_share_their_pretrainings(data, tmp_path):
    paths = [ROOT / f'configs/demo/{name}_sw_mini_scenes.py' for name in ('upernet', 'mask_rcnn')]
    networks = read_networks([(None, p) for p in paths], {'seg': data, 'det': data}, {})
    starts = find_starts(networks, settings_for(tmp_path, ['dense', 'sparse']))
    assert len(starts) == 4
    assert len({path for path, _ in starts.values()}) == 2


def test_comments_do_not_change_the_digest_of_source(tmp_path):
    first, second, third = (tmp_path / f'{n}/code.py' for n in 'abc')
    for path, text in (
        (first, '"""One."""\ndef f(x):\n    """Two."""\n    return x + 1\n'),
        (second, 'def f(x):\n    # three\n    return (x + 1)\n'),
        (third, 'def f(x):\n    return x + 2\n'),
    ):
        write_text(path, text)
    assert source_digest([first]) == source_digest([second.parent]) != source_digest([third])


def test_results_of_other_settings_are_refused(network, tmp_path):
    old = plan_runs([network], settings_for(tmp_path), {})[0]
    write_json(old.folder / 'settings.json', 'training_settings', old.settings)
    check_not_mixed([old])
    new = plan_runs([network], settings_for(tmp_path, budgets={'seg': 9}), {})[0]
    with pytest.raises(UsageError, match=r'budget 4 there, 9 now.*another --out'):
        check_not_mixed([new])
    write_json(old.folder / 'result.json', 'training_result', {'digest': old.digest})
    with pytest.raises(UsageError, match=f'{old.digest} instead of {new.digest}'):
        result_of(new)


def test_named_checkpoint_must_be_what_it_is_named(pretrained, network, tmp_path):
    (dense,) = pretrained.glob('dense-*.pth')
    (sparse,) = pretrained.glob('sparse-*.pth')
    for kind, path in (('dense', sparse), ('sparse', dense)):
        settings = settings_for(tmp_path, [kind], pretrained={(kind, ''): path})
        with pytest.raises(UsageError, match=f'--pretrained-{kind}, but is'):
            find_starts([network], settings)
    settings = settings_for(tmp_path, ['sparse'], pretrained={('sparse', network.name): sparse})
    assert find_starts([network], settings)[network.name, 'sparse'][0] == sparse


def test_starts_of_another_backbone(network, data, tmp_path):
    path = tmp_path / 'resnet.py'
    path.write_text(RESNET)
    resnet = read_networks([('seg', path)], {'seg': data}, {})[0]
    assert not resnet.is_shiftwise
    settings = settings_for(tmp_path, ['scratch', 'sparse', 'sparse-unmasked'])
    found = find_starts([network, resnet], settings)
    dense = find_starts([resnet], settings_for(tmp_path, ['dense']))
    assert found['resnet', 'sparse'] != found['mini', 'sparse']
    assert found['resnet', 'sparse'] != dense['resnet', 'dense']
    sparser = settings_for(tmp_path, ['sparse'], sparsity=0.8)
    assert find_starts([resnet], sparser)['resnet', 'sparse'] != found['resnet', 'sparse']
    planned = plan_runs([network, resnet], settings, found)
    assert [run.name for run in planned if run.network is resnet] == [
        'seg-resnet-scratch-seed0',
        'seg-resnet-sparse-seed0',
        'seg-resnet-sparse-unmasked-seed0',
    ]
    kept = {
        run.start: 'KeepSparsityHook' in [hook['type'] for hook in hooks if 'type' in hook]
        for run in planned
        if run.network is resnet
        for hooks in [run_config(run, settings).custom_hooks]
    }
    assert kept == {'scratch': False, 'sparse': True, 'sparse-unmasked': False}


def test_starts_that_make_no_sense_for_another_backbone(network, data, tmp_path):
    path = tmp_path / 'resnet.py'
    path.write_text(RESNET)
    resnet = replace(read_networks([('seg', path)], {'seg': data}, {})[0], is_demo=False)
    with pytest.raises(UsageError, match='none of --starts dense,sparse makes sense for resnet'):
        find_starts([network, resnet], settings_for(tmp_path, ['dense', 'sparse']))
    settings = settings_for(tmp_path, ['scratch', 'sparse'])
    planned = plan_runs([network, resnet], settings, find_starts([network, resnet], settings))
    assert [run.name for run in planned] == [
        'seg-mini-scratch-seed0',
        'seg-mini-sparse-seed0',
        'seg-resnet-scratch-seed0',
    ]
    rows = make_rows([network, resnet], planned, settings.starts)
    assert [row.wanted for row in rows] == [1, 1, 1, 0]
    dense = tmp_path / 'dense.pth'
    torch.save(build_backbone(resnet.cfg).state_dict(), dense)
    named = settings_for(tmp_path, ['sparse'], pretrained={('dense', 'resnet'): dense})
    assert find_starts([resnet], named)['resnet', 'sparse'][0].parent == tmp_path / 'starts'
    named = settings_for(tmp_path, ['sparse'], pretrained={('sparse', 'resnet'): dense})
    with pytest.raises(UsageError, match=r'dense\.pth was named .* but has no zeros'):
        find_starts([resnet], named)
