"""Other rules to prune by, and numbers that move between layers, under mmengine's real Runner."""

from __future__ import annotations

import pytest
import torch
from toy import EMA, POINTWISE
from toy import dynamic_hook as hook
from watched import ADAMW, TOTAL, assert_same, train

from mmsw.checkpoint import load_checkpoint_file
from mmsw.engine.hooks import DynamicSparsityHook
from mmsw.sparsity import DynamicSettings

ACCUMULATED = dict(type='OptimWrapper', optimizer=ADAMW, accumulative_counts=2)


def kept(seen: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in seen.items()}


@pytest.mark.parametrize('granularity', ['filter', 'weight'])
@pytest.mark.parametrize('redistribution', ['momentum', 'magnitude', 'nonzeros'])
@pytest.mark.parametrize('grow', ['random', 'gradient'])
def test_the_network_keeps_its_number_to_the_weight(
    tmp_path, grow, redistribution, granularity
) -> None:
    settings = dict(grow=grow, redistribution=redistribution, granularity=granularity)
    _, watch = train(tmp_path, hook(**settings, prune='set', align_interval=2, prune_rate=0.5))
    assert watch.changes() == [2, 4]
    assert all(sum(kept(seen).values()) == TOTAL * 9 // 2 for seen in watch.seen)
    if redistribution != 'nonzeros':
        assert kept(watch.seen[0]) != kept(watch.seen[-1]), 'numbers move between layers'


@pytest.mark.parametrize('stop', [1, 2, 3, 5])
@pytest.mark.parametrize(
    ('settings', 'extra'),
    [
        pytest.param(
            dict(grow='gradient', redistribution='momentum', prune='set'), [EMA], id='all'
        ),
        pytest.param(
            dict(redistribution='magnitude', scope=POINTWISE, granularity='weight'),
            [],
            id='pointwise',
        ),
    ],
)
def test_resumed_runs_are_bit_equal(tmp_path, stop, settings, extra) -> None:
    """Stopped after any iteration: weights, masks, optimizer, means and generator."""
    settings = hook(start='snip', interval=2, align_interval=2, **settings)
    keep_all = dict(type='CheckpointHook', by_epoch=False, interval=1)
    train(tmp_path, *extra, settings, keep_all)
    path = str(tmp_path / f'iter_{stop}.pth')
    train(tmp_path / 'resumed', *extra, settings, resume=True, load_from=path)
    again = load_checkpoint_file(tmp_path / 'resumed/iter_6.pth')
    assert_same(again, load_checkpoint_file(tmp_path / 'iter_6.pth'))


def test_from_a_sparse_checkpoint(tmp_path, sparse_checkpoint) -> None:
    settings = hook(start='from_checkpoint', sparsity=None, redistribution='nonzeros', prune='set')
    _, watch = train(tmp_path, settings, checkpoint=sparse_checkpoint)
    assert watch.changes() == [2, 4]
    counts = {sum(int(m.flatten(1).any(1).sum()) for m in seen.values()) for seen in watch.seen}
    assert counts == {2013}


def test_growth_and_numbers_look_at_their_own_gradients(tmp_path, monkeypatch) -> None:
    """Growth by gradient sees the iterations from the update on, summed up to the step; the running
    mean sees all of them."""
    given = {}

    def next_masks(self, step, steps, gradients=None, momentum=None):
        given['growth'] = {name: value.clone() for name, value in gradients.items()}
        given['mean'] = {name: value.clone() for name, value in momentum.items()}
        return {name: layer.mask.clone() for name, layer in self.layers.items()}, 0.0

    monkeypatch.setattr('mmsw.sparsity.DynamicSparsity.next_masks', next_masks)
    found = {}
    for name, settings in {
        'both': dict(grow='gradient', redistribution='momentum'),
        'gradient': dict(grow='gradient', redistribution='magnitude'),
        'momentum': dict(grow='momentum'),
    }.items():
        torch.manual_seed(0)
        train(
            tmp_path / name,
            hook(interval=3, **settings),
            optimizer=ACCUMULATED,
            max_iters=5,
        )
        found[name] = dict(given)
    for layer, gradient in found['gradient']['growth'].items():
        assert bool(gradient.any())
        torch.testing.assert_close(found['both']['growth'][layer], gradient)
        torch.testing.assert_close(found['both']['mean'][layer], found['momentum']['mean'][layer])


def test_numbers_by_magnitude_keep_no_gradients(tmp_path) -> None:
    runner, _ = train(tmp_path, hook(redistribution='magnitude'), max_iters=3)
    made = next(h for h in runner.hooks if isinstance(h, DynamicSparsityHook))
    assert made._gradients.means == {}
    assert not made._settings.goes_by_gradients
    assert DynamicSettings(sparsity=0.5, redistribution='momentum').goes_by_momentum
