"""``max_iters``, ``max_epochs`` and ``batch_size`` given as options: every place they reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from config_helpers import RECIPE
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny_run import tiny_config

from mmsw.apis import build_runner, load_config
from mmsw.apis.options import set_max_epochs, set_max_iters
from mmsw.errors import UsageError

WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100)
POLY = dict(type='PolyLR', by_epoch=False, begin=100, end=1000)


def in_iterations(*schedulers: dict, **settings: Any) -> Config:
    loop = dict(type='IterBasedTrainLoop', max_iters=1000, val_interval=200)
    return Config(dict(train_cfg=loop, param_scheduler=list(schedulers), **settings))


def in_epochs(*schedulers: dict, **settings: Any) -> Config:
    loop = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=5)
    return Config(dict(train_cfg=loop, param_scheduler=list(schedulers), **settings))


class Rates(Hook):
    """Notes the learning rate of every iteration."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        self.rates += runner.optim_wrapper.get_lr()['lr']


@pytest.mark.parametrize('option', ['max_iters', 'train_cfg.max_iters'])
def test_a_shorter_recipe_ends_with_the_run(option: str) -> None:
    cfg = load_config(RECIPE, {option: 10000})
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=10000, val_interval=10000)
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.end, poly.begin, poly.end) == (1000, 1000, 10000)
    assert cfg.default_hooks.checkpoint.interval == 10000
    assert cfg.default_hooks.logger.interval == 50
    longer = load_config(RECIPE, {option: 320000})
    assert longer.train_cfg.val_interval == longer.default_hooks.checkpoint.interval == 16000
    assert [item.end for item in longer.param_scheduler] == [1500, 320000]
    same = load_config(RECIPE, {option: 160000})
    assert same.to_dict() == load_config(RECIPE).to_dict()


def test_what_the_user_sets_wins() -> None:
    own = {'param_scheduler.1.end': 160000, 'train_cfg.val_interval': 7}
    cfg = load_config(RECIPE, {'max_iters': 10, **own})
    assert (cfg.param_scheduler[1].end, cfg.train_cfg.val_interval) == (160000, 7)
    assert cfg.train_cfg.max_iters == cfg.default_hooks.logger.interval == 10
    loop = {'train_cfg.type': 'MyLoop', 'train_cfg.max_iters': 10}
    cfg = load_config(RECIPE, loop)  # merged as they are
    assert (cfg.train_cfg.max_iters, cfg.param_scheduler[1].end) == (10, 160000)


def test_steps_restarts_and_hooks_keep_their_share() -> None:
    steps = dict(type='MultiStepLR', by_epoch=False, milestones=[500, 900], begin=0, end=1000)
    cosine = dict(type='CosineAnnealingLR', by_epoch=False, begin=100, T_max=900, end=1000)
    restarts = dict(type='CosineRestartLR', by_epoch=False, periods=[250, 750], end=1000)
    hook = dict(type='DynamicSparsityHook', interval=3, end_iter=751)
    cfg = in_iterations(WARM_UP, steps, cosine, restarts, custom_hooks=[hook])
    cfg.train_cfg.dynamic_intervals = [(900, 50)]
    set_max_iters(cfg, 100)
    assert cfg.param_scheduler[0].end == 10
    assert cfg.param_scheduler[1].milestones == [50, 90]
    assert (cfg.param_scheduler[2].begin, cfg.param_scheduler[2].T_max) == (10, 90)
    assert cfg.param_scheduler[2].end == 100
    assert cfg.param_scheduler[3].periods == [25, 75]
    assert cfg.custom_hooks[0] == dict(type='DynamicSparsityHook', interval=3, end_iter=76)
    assert cfg.train_cfg.dynamic_intervals == [(90, 50)]


def test_a_schedule_that_the_run_cuts_is_fitted() -> None:
    """Of a file that inherits a long schedule and sets the length of the run alone."""
    hook = dict(type='DynamicSparsityHook', end_iter=5000)
    cfg = in_iterations(WARM_UP, dict(POLY, end=10000), custom_hooks=[hook])
    set_max_iters(cfg, 500)
    assert [item.end for item in cfg.param_scheduler] == [50, 500]
    assert cfg.custom_hooks[0].end_iter == 250


def test_schedulers_of_several_optimizers() -> None:
    cfg = in_iterations()
    cfg.param_scheduler = dict(a=[WARM_UP, POLY], b=dict(POLY, begin=0))
    set_max_iters(cfg, 2000)
    assert [item.end for item in cfg.param_scheduler.a] == [100, 2000]
    assert cfg.param_scheduler.b.end == 2000


def test_epochs() -> None:
    in_whole = dict(type='LinearLR', begin=0, end=3, start_factor=0.1)
    steps = dict(type='MultiStepLR', begin=0, end=30, milestones=[20, 27])
    hooks = dict(checkpoint=dict(interval=10), logger=dict(interval=50))
    cfg = in_epochs(WARM_UP, in_whole, steps, default_hooks=hooks)
    set_max_epochs(cfg, 4)
    assert cfg.param_scheduler[0] == WARM_UP  # only the data says how many an epoch has
    assert (cfg.param_scheduler[1].end, cfg.param_scheduler[1].start_factor) == (1, 1.0)
    assert (cfg.param_scheduler[2].end, cfg.param_scheduler[2].milestones) == (4, [3, 4])
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 4
    assert cfg.default_hooks.logger.interval == 50

    converted = dict(by_epoch=True, convert_to_iter_based=True)
    cosine = dict(type='CosineAnnealingLR', begin=3, end=30, T_max=27, **converted)
    cfg = in_epochs(dict(in_whole, **converted), cosine)
    set_max_epochs(cfg, 2)
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.end, cosine.begin, cosine.end, cosine.T_max) == (0.2, 0.2, 2, 1.8)


@pytest.mark.parametrize(
    ('cfg', 'options', 'problem'),
    [
        (in_epochs(), {'max_iters': 5}, 'max_iters=5 does not fit .*train_cfg.max_epochs=30: set'),
        (in_iterations(), {'max_epochs': 5}, 'which trains for train_cfg.max_iters=1000: set max_'),
        (in_iterations(), {'max_iters': 0}, 'max_iters must be a positive integer, got 0'),
        (in_iterations(), {'max_iters': 'x'}, "max_iters must be a positive integer, got 'x'"),
        (Config({}), {'max_iters': 5}, 'train_cfg of the config has no max_iters'),
        (in_iterations(), {'max_iters': 5, 'train_cfg.max_iters': 6}, 'say two lengths of the run'),
        (in_iterations(), {'max_iters': 5, 'train_cfg.type': 'A'}, 'set train_cfg.max_iters=5'),
        (in_iterations(), {'batch_size': 5}, 'the config has no train_dataloader'),
    ],
)
def test_refused(cfg: Config, options: dict, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        load_config(cfg, options)


def test_batch_size_is_that_of_training() -> None:
    cfg = load_config(RECIPE, {'batch_size': 7})
    assert cfg.train_dataloader.batch_size == 7
    assert cfg.val_dataloader.batch_size == 1
    sampler = dict(type='GroupMultiSourceSampler', batch_size=5, source_ratio=[1, 4])
    cfg = Config(dict(train_dataloader=dict(batch_size=5, sampler=sampler)))
    with pytest.raises(UsageError, match=r'train_dataloader\.sampler\.batch_size decides as well'):
        load_config(cfg, {'batch_size': 7})
    with pytest.raises(UsageError, match='batch_size must be a positive integer, got 0'):
        load_config(RECIPE, {'batch_size': 0})


@pytest.mark.parametrize('length', [1, 2, 30])
def test_runs_of_any_length_train(length: int, tmp_path: Path) -> None:
    """A warm-up without room leaves the learning rate as it is."""
    schedulers = [WARM_UP, dict(POLY, eta_min=0.01)]
    cfg = tiny_config(tmp_path, 1000, param_scheduler=schedulers)
    runner = build_runner(cfg, cfg_options={'max_iters': length})
    hook = Rates()
    runner.register_hook(hook)
    runner.train()
    rates = hook.rates
    assert runner.iter == len(rates) == length
    assert rates[0] == pytest.approx(0.1 if length < 20 else 0.01)
    assert min(rates) > 0
    assert (tmp_path / f'iter_{length}.pth').is_file()
