"""Dynamic sparse training under mmengine's real Runner."""

from __future__ import annotations

import functools
from fractions import Fraction

import mmengine.optim.optimizer.amp_optimizer_wrapper as amp_module
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from toy import EMA, POINTWISE, ToyData, build_runner, train_with_log
from toy import dynamic_hook as hook
from two_processes import run_in_two_processes
from watched import ADAMW, TOTAL, assert_same, train

from mmsw import sparsity
from mmsw.checkpoint import load_checkpoint_file
from mmsw.engine.hooks import DynamicSparsityHook, SparsityLostError
from mmsw.errors import SparsityError
from mmsw.sparsity import masks, report

SGD = dict(type='SGD', lr=1e-2, momentum=0.9, weight_decay=1e-2)
SLOW = dict(type='SGD', lr=1e-4)
SAMPLER = dict(type='DefaultSampler', shuffle=False)


@pytest.mark.parametrize('granularity', ['filter', 'weight'])
@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
@pytest.mark.parametrize('start', ['snip', 'erk', 'uniform'])
def test_density_is_conserved_and_zeros_are_exact(tmp_path, start, grow, granularity) -> None:
    settings = hook(start=start, grow=grow, granularity=granularity, align_interval=2)
    runner, watch = train(tmp_path, settings)
    assert watch.changes() == [2, 4], 'the last iteration has nothing left to train'
    units = 1 if granularity == 'filter' else 9
    for seen in watch.seen:
        assert sum(int(mask.sum()) for mask in seen.values()) == TOTAL * 9 // 2
        if units == 1:
            assert all(torch.equal(m.flatten(1).any(1), m.flatten(1).all(1)) for m in seen.values())
    for iteration in (2, 4, 6):
        checkpoint = load_checkpoint_file(tmp_path / f'iter_{iteration}.pth')
        saved = {n: m for n, m in checkpoint['state_dict'].items() if n.endswith('.mask')}
        assert all(torch.equal(watch.seen[iteration][n.removesuffix('.mask')], m)
                   for n, m in saved.items())  # fmt: skip
    assert report(runner.model).total.weight_density == 0.5


@pytest.mark.parametrize(
    ('optimizer', 'hooks'),
    [
        pytest.param(dict(optimizer=SGD), [], id='sgd-momentum'),
        pytest.param(dict(optimizer=SGD, clip_grad=dict(max_norm=0.1)), [], id='clipping'),
        pytest.param(dict(optimizer=ADAMW), [EMA], id='ema-before'),
        pytest.param(dict(optimizer=ADAMW), [dict(**EMA, priority='HIGH')], id='ema-first'),
        pytest.param(dict(optimizer=ADAMW), [dict(**EMA, begin_iter=4)], id='ema-later'),
    ],
)
@pytest.mark.parametrize('scope', [None, POINTWISE], ids=['small-kernels', 'pointwise'])
def test_with_other_training_tools(tmp_path, optimizer, hooks, scope) -> None:
    if scope and hooks and 'priority' in hooks[0]:
        pytest.skip('combination: masks must be attached before EMAHook copies the model')
    train(
        tmp_path,
        *hooks,
        hook(grow='gradient', scope=scope),
        optimizer=dict(type='OptimWrapper', **optimizer),
    )
    checkpoint = load_checkpoint_file(tmp_path / 'iter_6.pth')
    for name in ('state_dict', 'ema_state_dict') if hooks else ('state_dict',):
        state = {key.removeprefix('module.'): value for key, value in checkpoint[name].items()}
        pruned = {k.removesuffix('.mask'): v for k, v in state.items() if k.endswith('.mask')}
        assert sum(int((~mask).sum()) for mask in pruned.values()) > 1000
        assert sparsity.lost_zeros(state, pruned) == {}


def test_accumulation_waits_for_the_step(tmp_path) -> None:
    _, watch = train(
        tmp_path,
        hook(interval=2, grow='gradient'),
        optimizer=dict(type='OptimWrapper', optimizer=ADAMW, accumulative_counts=3),
        max_iters=9,
    )
    assert watch.changes() == [3, 6]  # due after 2, 4 and 6, 8; steps after 3, 6, 9


def test_an_update_that_waits_is_not_forgotten(tmp_path) -> None:
    """Due after iteration 2, where the run stops; the optimizer steps after iteration 3."""
    settings = dict(optimizer=dict(type='OptimWrapper', optimizer=ADAMW, accumulative_counts=3))
    train(tmp_path, hook(interval=2), max_iters=9, **settings)
    _, watch = train(
        tmp_path / 'resumed',
        hook(interval=2),
        max_iters=9,
        resume=True,
        load_from=str(tmp_path / 'iter_2.pth'),
        **settings,
    )
    assert [2 + step for step in watch.changes()] == [3, 6]


@OPTIM_WRAPPERS.register_module()
class WithoutFirst(OptimWrapper):
    """Full precision, but the first iteration overflows: no gradient is finite, and no step."""

    def update_params(self, loss, step_kwargs=None, zero_kwargs=None) -> None:
        self._inner_count += 1
        if self._inner_count == 1:
            (loss * float('inf')).backward()
            self.zero_grad()
        else:
            super().update_params(loss)


def running_means(runner) -> dict[str, torch.Tensor]:
    return next(h for h in runner.hooks if isinstance(h, DynamicSparsityHook))._gradients.means


@pytest.mark.parametrize('grow', ['gradient', 'momentum'])
@pytest.mark.parametrize('init_scale', [2.0**10, 3e38], ids=['steps', 'first-steps-overflow'])
def test_mixed_precision(tmp_path, monkeypatch, grow, init_scale) -> None:
    """mmengine's wrapper insists on a GPU; its code runs here with torch's scaler for CPUs."""
    monkeypatch.setattr(amp_module, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_module, 'GradScaler', functools.partial(torch.amp.GradScaler, 'cpu'))
    settings = hook(interval=1 if grow == 'gradient' else 2, grow=grow, end_iter=4)
    torch.manual_seed(0)
    runner, watch = train(
        tmp_path,
        settings,
        optimizer=dict(
            type='AmpOptimWrapper',
            dtype='bfloat16',
            loss_scale=dict(init_scale=init_scale, backoff_factor=2.0**-100),
            optimizer=SLOW,
        ),
    )
    overflowed = runner.optim_wrapper.loss_scaler.get_scale() < init_scale
    assert overflowed == (init_scale == 3e38)
    if grow == 'gradient':
        assert watch.changes() == ([2, 3] if overflowed else [1, 2, 3])
    else:
        assert watch.changes() == [2]
        full = dict(type='WithoutFirst' if overflowed else 'OptimWrapper', optimizer=SLOW)
        torch.manual_seed(0)
        expected, _ = train(tmp_path / 'full', settings, optimizer=full)
        # Layer by layer, those of maps of a single pixel are little more than noise.
        mean, wanted = (
            torch.cat([value.flatten() for value in running_means(one).values()])
            for one in (runner, expected)
        )
        torch.testing.assert_close(mean.norm(), wanted.norm(), rtol=0.2, atol=0.0)


def test_static_sparsity(tmp_path) -> None:
    _, watch = train(tmp_path, hook(start='snip', end_iter=0))
    assert watch.changes() == []
    assert sum(int(mask.sum()) for mask in watch.seen[-1].values()) == TOTAL * 9 // 2


def test_adapting_ends_where_it_is_told_to(tmp_path) -> None:
    _, watch = train(tmp_path, hook(interval=1, end_iter=4))
    assert watch.changes() == [1, 2, 3]


def test_from_a_sparse_checkpoint(tmp_path, sparse_checkpoint) -> None:
    """The published masks are where it starts, and their number is kept to the filter."""
    settings = hook(start='from_checkpoint', sparsity=None, prune_rate=0.5)
    _, watch = train(tmp_path, settings, checkpoint=sparse_checkpoint)
    assert watch.changes() == [2, 4]
    counts = {sum(int(m.flatten(1).any(1).sum()) for m in seen.values()) for seen in watch.seen}
    assert counts == {2013}


def test_a_dense_start_is_refused_from_checkpoint(tmp_path) -> None:
    with pytest.raises(ValueError, match='nothing is pruned in the network'):
        train(tmp_path, hook(start='from_checkpoint', sparsity=None))
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('kind', ['val', 'test'])
def test_runs_that_do_not_train_are_left_alone(tmp_path, kind) -> None:
    """Neither masks nor an error for a scope that does not fit, whatever is tested there."""
    settings = hook(scope='^nothing of this name')
    loop = {
        f'{kind}_dataloader': dict(batch_size=4, dataset=ToyData(), sampler=SAMPLER),
        f'{kind}_cfg': dict(),
        f'{kind}_evaluator': dict(type='DumpResults', out_file_path=str(tmp_path / 'out.pkl')),
    }
    runner = build_runner(tmp_path, None, hooks=[settings], **loop)
    runner.model.test_step = runner.model.val_step = lambda data: [dict(score=1)]
    getattr(runner, kind)()
    assert not any(hasattr(module, 'mask_gate') for module in runner.model.modules())
    with pytest.raises(SparsityError, match='matches no parameter'):
        runner.train()


@pytest.mark.parametrize('stop', [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ('grow', 'scope', 'extra'),
    [
        pytest.param('random', None, [], id='random'),
        pytest.param('gradient', None, [], id='gradient'),
        pytest.param('momentum', None, [EMA], id='momentum-ema'),
        pytest.param('momentum', POINTWISE, [EMA], id='momentum-pointwise-ema'),
    ],
)
def test_resumed_runs_are_bit_equal(tmp_path, stop, grow, scope, extra) -> None:
    """Stopped after any iteration: weights, masks, optimizer and generator end up the same."""
    settings = hook(start='snip', grow=grow, interval=2, align_interval=2, scope=scope)
    keep_all = dict(type='CheckpointHook', by_epoch=False, interval=1)
    train(tmp_path, *extra, settings, keep_all)
    whole = load_checkpoint_file(tmp_path / 'iter_6.pth')
    resumed_dir = tmp_path / 'resumed'
    train(
        resumed_dir,
        *extra,
        settings,
        resume=True,
        load_from=str(tmp_path / f'iter_{stop}.pth'),
    )
    assert_same(load_checkpoint_file(resumed_dir / 'iter_6.pth'), whole)


def test_resuming_a_run_that_had_no_such_hook_is_refused(tmp_path) -> None:
    train(tmp_path, max_iters=2)
    with pytest.raises(ValueError, match=r"without DynamicSparsityHook.*start='from_checkpoint'"):
        train(tmp_path, hook(), resume=True, load_from=str(tmp_path / 'iter_2.pth'))


def test_weights_to_start_from_bring_no_state(tmp_path) -> None:
    """``load_from`` without resuming: the masks count, the counters do not."""
    train(tmp_path / 'first', hook(), max_iters=4)
    settings = hook(start='from_checkpoint', sparsity=None)
    load_from = str(tmp_path / 'first/iter_4.pth')
    runner, watch = train(tmp_path / 'second', settings, load_from=load_from, max_iters=2)
    first = load_checkpoint_file(load_from)['state_dict']
    assert all(torch.equal(mask, first[f'{name}.mask']) for name, mask in watch.seen[0].items())
    assert next(h for h in runner.hooks if isinstance(h, DynamicSparsityHook)).dynamic.updates == 0


def test_two_processes_hold_identical_masks(tmp_path) -> None:
    run_in_two_processes('ddp_dynamic_worker.py', tmp_path)
    for name in ('random', 'gradient', 'momentum', 'redistributed'):
        whole = load_checkpoint_file(tmp_path / name / 'iter_6.pth')
        assert_same(load_checkpoint_file(tmp_path / name / 'resumed/iter_6.pth'), whole)
        checkpoint = whole['state_dict']
        pruned = {n.removesuffix('.mask'): m for n, m in checkpoint.items() if n.endswith('.mask')}
        assert sum(int(mask.sum()) for mask in pruned.values()) == TOTAL * 9 // 2
        assert sparsity.lost_zeros(checkpoint, pruned) == {}


def test_without_the_mask_the_zeros_are_lost(tmp_path) -> None:
    """The control: with the masks opened behind the hook, what was pruned comes back."""

    class OpenMasks(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            if batch_idx == 0:
                self.zeros = masks(runner.model)
                for _, layer in sparsity.masked_layers(runner.model):
                    layer.mask.fill_(True)

    opened = OpenMasks()
    runner = build_runner(tmp_path, None, hooks=[hook(interval=100), opened])
    runner.train()
    lost = sparsity.lost_zeros(runner.model.state_dict(), opened.zeros)
    assert sum(lost.values()) > 1000


def test_masks_changed_behind_the_hook_stop_the_run(tmp_path) -> None:
    class OpenOne(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
            next(sparsity.masked_layers(runner.model))[1].mask.fill_(True)

    runner = build_runner(tmp_path, None, hooks=[hook(), OpenOne()])
    with pytest.raises(RuntimeError, match='masks were changed behind the hook'):
        runner.train()


def test_fixed_masks_are_guarded_if_asked_for(tmp_path) -> None:
    """Told that pruned weights stay pruned, the report stops a run that exchanges them."""
    hooks = [dict(type='SparsityReportHook', fixed_masks=True), hook(interval=1, grow='random')]
    runner = build_runner(tmp_path, None, hooks=hooks)
    with pytest.raises(SparsityLostError, match='are not zero'):
        runner.train()


def test_layers_at_their_least_are_named_in_the_log(tmp_path, caplog) -> None:
    runner = build_runner(tmp_path, None, hooks=[hook(sparsity=0.999)], max_iters=1)
    train_with_log(runner, caplog)
    assert '5 layers keep a single filter per path' in caplog.text
    assert '10/2856 filters kept (0.35%)' in caplog.text


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(interval=0), 'interval must be at least 1 iteration, got 0'),
        (dict(end_iter=-1), 'end_iter must not be negative, got -1'),
        (dict(snip_batches=0), 'snip_batches must be at least 1, got 0'),
        (dict(momentum=1.0), r'momentum must be in \[0, 1\), got 1.0'),
        (dict(sparsity=1.0), r'sparsity must be in \[0, 1\), got 1.0'),
        (dict(sparsity=Fraction(1, 2)), r'sparsity must be a number, .* got Fraction\(1, 2\)'),
        (dict(interval=[1]), r'interval must be a number, .* got \[1\] \(list\)'),
        (dict(grow='all'), "got 'all'"),
        (dict(seed=-3), 'seed must not be negative, got -3'),
        (dict(prune='random'), r"prune must be one of \('magnitude', 'set'\), got 'random'"),
        (dict(redistribution='even'), "redistribution must be one of .*, got 'even'"),
        (dict(sparsty=0.3), 'no setting sparsty; known are start, sparsity, .* momentum$'),
    ],
)
def test_arguments_that_make_no_sense_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicSparsityHook(**{'sparsity': 0.5, **settings})


def test_settings_of_earlier_configs_are_taken() -> None:
    """``prune`` had only one value."""
    built = HOOKS.build(hook(start='snip', prune='magnitude', seed=1))
    assert built._settings == sparsity.DynamicSettings(sparsity=0.5, seed=1)
