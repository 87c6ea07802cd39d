"""Optimizers of every kind leave at zero what KeepSparsityHook keeps."""

from __future__ import annotations

import pytest
import torch
from plain_model import KEEP, PRUNED, assert_kept, by_hand, kept, train

from mmsw.checkpoint import load_checkpoint_file
from mmsw.sparsity import masked_layers

EMA = dict(type='EMAHook', momentum=0.3)


class Mixing(torch.optim.SGD):
    """Moves every weight by the mean gradient of its layer, as no optimizer by weights does."""

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group['params']:
                parameter -= group['lr'] * (parameter.grad + parameter.grad.mean() + 0.1)


class SignMomentum(torch.optim.SGD):
    """Steps of one size along the sign of a running mean, with decoupled decay: Lion's kind."""

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group['params']:
                state = self.state[parameter]
                mean = state.setdefault('mean', torch.zeros_like(parameter))
                parameter.mul_(1 - group['lr'] * 0.1)
                parameter -= group['lr'] * (0.9 * mean + 0.1 * parameter.grad).sign()
                mean.lerp_(parameter.grad, 0.01)


@pytest.mark.parametrize('optimizer', ['Mixing', 'SignMomentum', 'Adamax', 'RMSprop', 'NAdam'])
def test_optimizers(tmp_path, optimizer, monkeypatch) -> None:
    kind = globals().get(optimizer) or getattr(torch.optim, optimizer)
    model = by_hand()
    wrapper = dict(type='OptimWrapper', optimizer=dict(type=kind, lr=1e-2))
    train(tmp_path, KEEP, EMA, model=model, optim_wrapper=wrapper)
    assert_kept(tmp_path / 'iter_2.pth', ema=True)


def test_sign_updates_forget_the_past_of_what_is_pruned(tmp_path) -> None:
    wrapper = dict(type='OptimWrapper', optimizer=dict(type=SignMomentum, lr=1e-2))
    train(tmp_path, EMA, optim_wrapper=wrapper)
    checkpoint = load_checkpoint_file(tmp_path / 'iter_2.pth')
    for name in PRUNED:
        weight = checkpoint['state_dict'][f'{name}.weight']
        weight.masked_fill_(~kept(name, weight), 0.0)
    torch.save(checkpoint, tmp_path / 'iter_2.pth')
    runner = train(tmp_path, max_iters=4, resume=True, optim_wrapper=wrapper)
    assert_kept(tmp_path / 'iter_4.pth')
    state = runner.optim_wrapper.optimizer.state
    for name, layer in masked_layers(runner.model):
        assert torch.count_nonzero(state[layer.weight]['mean'][~layer.mask]) == 0, name
