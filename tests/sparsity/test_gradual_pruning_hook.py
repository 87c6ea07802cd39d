"""Pruning step by step under mmengine's real Runner."""

from __future__ import annotations

import functools
import logging

import mmengine.optim.optimizer.amp_optimizer_wrapper as amp_module
import pytest
import torch
from conv_model import ConvModel
from toy import EMA, ToyModel, build_runner, dynamic_hook, train_with_log
from two_processes import run_in_two_processes
from watched import ADAMW, assert_same, train

from mmsw import sparsity
from mmsw.checkpoint import load_checkpoint_file
from mmsw.errors import MmswError, SparsityError, UsageError
from mmsw.sparsity.cubic_schedule import CubicSchedule

SGD = dict(type='SGD', lr=1e-2, momentum=0.9, weight_decay=1e-2)
WEIGHTS = {'backbone.3': 12 * 8 * 9, 'backbone.6': 12 * 9, 'backbone.7': 16 * 12}


def hook(**settings) -> dict:
    settings = {'sparsity': 0.8, 'begin': 1, 'end': 5, 'interval': 2, **settings}
    return dict(type='GradualPruningHook', **settings)


def run(work_dir, *hooks, optimizer=ADAMW, max_iters=6, model=None, **kwargs):
    torch.manual_seed(0)
    wrapper = optimizer if 'optimizer' in optimizer else dict(optimizer=optimizer)
    return train(
        work_dir,
        *hooks,
        optimizer={'type': 'OptimWrapper', **wrapper},
        max_iters=max_iters,
        model=ConvModel() if model is None else model,
        **kwargs,
    )


def kept(seen: dict) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in seen.items()}


def expected(share: float, sizes: dict[str, int] = WEIGHTS) -> dict[str, int]:
    return {name: size - round(share * size) for name, size in sizes.items()}


def assert_only_shrink(watch) -> None:
    for before, after in zip(watch.seen, watch.seen[1:], strict=False):
        assert all(not (after[name] & ~before[name]).any() for name in after)


def test_the_schedule_is_cubic() -> None:
    schedule = CubicSchedule(0.8, begin=10, end=40, interval=7, initial=0.2)
    steps = [schedule.step_before(n) for n in range(60)]
    assert steps[:10] == [None] * 10
    assert sorted({step for step in steps if step is not None}) == [10, 17, 24, 31, 38, 40]
    for step in (10, 17, 24, 31, 38, 40):
        literal = 0.8 + (0.2 - 0.8) * (1 - (step - 10) / 30) ** 3
        assert schedule.sparsity(step) == pytest.approx(literal, abs=1e-15)
    assert schedule.sparsity(40) == 0.8
    at_once = CubicSchedule(0.5, begin=3, end=3, interval=1)
    assert [at_once.step_before(n) for n in (2, 3, 9)] == [None, 3, 3]
    assert at_once.sparsity(3) == 0.5


@pytest.mark.parametrize('by', ['magnitude', 'snip', 'random'])
def test_counts_are_exact_at_every_step(tmp_path, by) -> None:
    runner, watch = run(tmp_path, hook(by=by, initial=0.1))
    assert watch.changes() == [1, 3, 5]
    shares = [0, 0.1, 0.1, 0.8 - 0.7 / 8, 0.8 - 0.7 / 8, 0.8, 0.8]
    assert [kept(seen) for seen in watch.seen] == [expected(share) for share in shares]
    assert_only_shrink(watch)
    state = load_checkpoint_file(tmp_path / 'iter_6.pth')['state_dict']
    assert all(torch.equal(state[f'{n}.mask'], mask) for n, mask in watch.seen[-1].items())
    assert sparsity.lost_zeros(state, watch.seen[-1]) == {}
    assert not hasattr(runner.model.backbone[0], 'mask')
    assert not hasattr(runner.model.classifier, 'mask')


@pytest.mark.parametrize(
    ('granularity', 'sizes'),
    [
        ('filter', {'backbone.3': 12, 'backbone.6': 12, 'backbone.7': 16}),
        ('channel', {'backbone.3': 8, 'backbone.7': 12}),
        ('block 4x3', {'backbone.3': 72, 'backbone.6': 9, 'backbone.7': 16}),
    ],
)
def test_units_go_whole(tmp_path, granularity, sizes) -> None:
    settings = dict(granularity=granularity, sparsity=0.5)
    _, watch = run(tmp_path, hook(**settings, begin=0, end=4))
    shares = [0, 0, 0.5 - 0.5 / 8, 0.5 - 0.5 / 8, 0.5, 0.5, 0.5]
    for seen, share in zip(watch.seen, shares, strict=True):
        units = {
            name: int(sparsity.units.kept_units(seen[name], granularity).sum()) for name in sizes
        }
        assert units == expected(share, sizes)
        weights = sum(seen[n].numel() * units[n] // size for n, size in sizes.items())
        assert sum(int(seen[name].sum()) for name in sizes) == weights, 'no unit is cut'


def test_n_of_m_is_reached_with_the_last_step(tmp_path) -> None:
    _, watch = run(tmp_path, hook(granularity='2:4', sparsity=None))
    sizes = {name: WEIGHTS[name] for name in ('backbone.3', 'backbone.7')}
    shares = [0, 0, 0, 0.5 - 0.5 / 8, 0.5 - 0.5 / 8, 0.5, 0.5]
    for seen, share in zip(watch.seen, shares, strict=True):
        assert kept(seen) == expected(share, sizes)
        groups = [mask.flatten(1).unflatten(1, (-1, 4)).sum(2) for mask in seen.values()]
        assert min(int(numbers.min()) for numbers in groups) >= 2
    assert all((numbers == 2).all() for numbers in groups)
    assert_only_shrink(watch)


def test_all_layers_together(tmp_path) -> None:
    _, watch = run(tmp_path, hook(per_layer=False))
    total = sum(WEIGHTS.values())
    assert sum(kept(watch.seen[-1]).values()) == total - round(0.8 * total)
    assert kept(watch.seen[-1]) != expected(0.8)
    assert_only_shrink(watch)


@pytest.mark.parametrize(
    ('optimizer', 'hooks'),
    [
        pytest.param(dict(optimizer=SGD), [], id='sgd-momentum'),
        pytest.param(dict(optimizer=SGD, clip_grad=dict(max_norm=0.1)), [], id='clipping'),
        pytest.param(dict(optimizer=ADAMW), [EMA], id='ema'),
        pytest.param(dict(optimizer=ADAMW), [dict(**EMA, priority='HIGH')], id='ema-first'),
        pytest.param(dict(optimizer=ADAMW), [dict(**EMA, begin_iter=4)], id='ema-later'),
    ],
)
def test_with_other_training_tools(tmp_path, optimizer, hooks) -> None:
    _, watch = run(tmp_path, *hooks, hook(), optimizer=optimizer)
    checkpoint = load_checkpoint_file(tmp_path / 'iter_6.pth')
    for name in ('state_dict', 'ema_state_dict') if hooks else ('state_dict',):
        state = {key.removeprefix('module.'): value for key, value in checkpoint[name].items()}
        pruned = {k.removesuffix('.mask'): v for k, v in state.items() if k.endswith('.mask')}
        assert kept(pruned) == expected(0.8)
        assert sparsity.lost_zeros(state, pruned) == {}
    assert kept(watch.seen[-1]) == expected(0.8)


def test_accumulation_waits_for_the_step(tmp_path) -> None:
    """Due after 1, 3 and 5; the optimizer steps after 3 and 6."""
    _, watch = run(tmp_path, hook(), optimizer=dict(optimizer=ADAMW, accumulative_counts=3))
    assert watch.changes() == [3, 6]
    assert kept(watch.seen[3]) == expected(0.8 - 0.8 / 8)
    assert kept(watch.seen[6]) == expected(0.8)


def test_mixed_precision(tmp_path, monkeypatch) -> None:
    """mmengine's wrapper insists on a GPU; its code runs here with torch's scaler for CPUs."""
    monkeypatch.setattr(amp_module, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_module, 'GradScaler', functools.partial(torch.amp.GradScaler, 'cpu'))
    wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', optimizer=SGD)
    _, watch = run(tmp_path, hook(by='snip'), optimizer=wrapper)
    assert watch.changes() == [3, 5]
    assert kept(watch.seen[-1]) == expected(0.8)


@pytest.mark.parametrize(
    ('by', 'stop'), [('magnitude', 1), ('magnitude', 2), ('snip', 1), ('snip', 4), ('random', 3)]
)
def test_resumed_runs_are_bit_equal(tmp_path, stop, by) -> None:
    keep_all = dict(type='CheckpointHook', by_epoch=False, interval=1)
    settings = hook(by=by, initial=0.1, end=4)
    run(tmp_path, EMA, settings, keep_all)
    whole = load_checkpoint_file(tmp_path / 'iter_6.pth')
    load_from = str(tmp_path / f'iter_{stop}.pth')
    run(tmp_path / 'resumed', EMA, settings, resume=True, load_from=load_from)
    assert_same(load_checkpoint_file(tmp_path / 'resumed/iter_6.pth'), whole)


def test_a_step_that_waits_is_not_forgotten(tmp_path) -> None:
    """Due after 1, where the run stops at 2; the optimizer steps after 3."""
    optimizer = dict(optimizer=ADAMW, accumulative_counts=3)
    run(tmp_path, hook(end=1), optimizer=optimizer)
    load_from = str(tmp_path / 'iter_2.pth')
    _, watch = run(
        tmp_path / 'more', hook(end=1), optimizer=optimizer, resume=True, load_from=load_from
    )
    assert [2 + step for step in watch.changes()] == [3]


def test_other_settings_on_resuming(tmp_path, caplog) -> None:
    run(tmp_path, hook(), max_iters=6)
    load_from = str(tmp_path / 'iter_2.pth')
    for changed in (dict(sparsity=0.9), dict(scope='backbone'), dict(per_layer=False)):
        with pytest.raises(SparsityError, match=f'cannot resume with .*{next(iter(changed))} is'):
            run(tmp_path / 'no', hook(**changed), resume=True, load_from=load_from)
    torch.manual_seed(0)
    runner = build_runner(
        tmp_path / 'other', None, max_iters=6, hooks=[hook(end=6)], model=ConvModel(),
        resume=True, load_from=load_from,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        train_with_log(runner, caplog)
    assert 'other settings now: end is 6, in the checkpoint it is 5' in caplog.text
    assert kept(sparsity.masks(runner.model)) == expected(0.8)


def test_a_damaged_state_is_named(tmp_path) -> None:
    run(tmp_path, hook(), max_iters=6)
    checkpoint = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    for damage in ('all', {'done': 'two'}, {}):
        checkpoint['gradual_pruning'] = damage
        torch.save(checkpoint, tmp_path / 'damaged.pth')
        with pytest.raises(SparsityError, match=r'state of gradual pruning .* is damaged'):
            run(tmp_path / 'no', hook(), resume=True, load_from=str(tmp_path / 'damaged.pth'))


def test_a_dense_run_can_go_on_with_it(tmp_path) -> None:
    run(tmp_path, max_iters=2)
    load_from = str(tmp_path / 'iter_2.pth')
    _, watch = run(tmp_path / 'pruned', hook(), resume=True, load_from=load_from)
    assert kept(watch.seen[0]) == WEIGHTS
    assert kept(watch.seen[1]) == expected(0.8 - 0.8 / 8), 'the step of iteration 3'


def test_what_is_pruned_at_the_start_counts(tmp_path) -> None:
    run(tmp_path, hook(sparsity=0.5, begin=0, end=0))
    load_from = str(tmp_path / 'iter_6.pth')
    _, watch = run(tmp_path / 'more', hook(begin=1), load_from=load_from)
    assert kept(watch.seen[0]) == expected(0.5)
    assert kept(watch.seen[1]) == expected(0.5), 'no weight comes back'
    assert kept(watch.seen[-1]) == expected(0.8)
    assert_only_shrink(watch)


def test_defaults_fit_the_run(tmp_path) -> None:
    settings = dict(type='GradualPruningHook', sparsity=0.5)
    _, watch = run(tmp_path, settings, max_iters=8)
    assert watch.changes() == [1, 2, 3, 4, 5, 6], 'from the start to three quarters'
    assert kept(watch.seen[-1]) == expected(0.5)


def test_filters_of_shift_wise_layers(tmp_path) -> None:
    settings = hook(granularity='filter', scope='paths', sparsity=0.5)
    _, watch = run(tmp_path, settings, model=ToyModel())
    for name, mask in watch.seen[-1].items():
        assert int(mask.flatten(1).any(1).sum()) == len(mask) - round(0.5 * len(mask))
        assert torch.equal(mask, watch.seen[-1][name.replace('paths.0', 'paths.1')])


def test_two_processes_prune_alike(tmp_path) -> None:
    run_in_two_processes('ddp_gradual_worker.py', tmp_path)
    state = load_checkpoint_file(tmp_path / 'iter_6.pth')['state_dict']
    pruned = {n.removesuffix('.mask'): m for n, m in state.items() if n.endswith('.mask')}
    assert kept(pruned) == expected(0.6)
    assert sparsity.lost_zeros(state, pruned) == {}


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(sparsity=1.0), r'sparsity must be in \[0, 1\), got 1.0'),
        (dict(sparsity=None), 'needs sparsity'),
        (dict(granularity='2:4'), "'2:4' has a sparsity of 0.5 by itself"),
        (dict(granularity='rows'), "granularity must be one of .*, got 'rows'"),
        (dict(initial=0.9), 'expected 0 <= initial <= sparsity, got initial=0.9, sparsity=0.8'),
        (dict(begin=6), 'expected 0 <= begin <= end, got begin=6, end=5'),
        (dict(begin=-1), 'expected 0 <= begin <= end, got begin=-1'),
        (dict(interval=0), 'interval must be a positive integer, got 0'),
        (dict(end=2.5), 'end must be a whole number, got 2.5'),
        (dict(snip_batches=0), 'snip_batches must be a positive integer, got 0'),
        (dict(by='size'), "by must be one of .*, got 'size'"),
    ],
)
def test_arguments_that_make_no_sense_are_named(tmp_path, settings, message) -> None:
    with pytest.raises(MmswError, match=message):
        run(tmp_path, hook(**settings))


def test_runs_that_cannot_work_are_refused_before_they_start(tmp_path) -> None:
    with pytest.raises(SparsityError, match=r'from iteration 1 to 9 does not fit into a run of 6'):
        run(tmp_path / 'short', hook(end=9))
    with pytest.raises(SparsityError, match=r"scope 'neck' matches no layer"):
        run(tmp_path / 'scope', hook(scope='neck'))
    with pytest.raises(UsageError, match='DynamicSparsityHook chooses masks'):
        run(tmp_path / 'both', hook(), dynamic_hook(scope=r'backbone\.3\.weight'))
    assert not list(tmp_path.rglob('*.pth'))
