"""Growth by gradients where mmengine compiles the model, and where layers get no gradient."""

from __future__ import annotations

import functools

import mmengine.optim.optimizer.amp_optimizer_wrapper as amp_module
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn
from toy import build_runner
from toy import dynamic_hook as hook

from mmsw import sparsity
from mmsw.engine.hooks import DynamicSparsityHook
from mmsw.errors import SparsityError
from mmsw.models import ShiftWiseConv2d

SGD = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-3))


class SmallModel(BaseModel):
    """As little as there can be of an ordinary and a shift-wise layer; quick to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.layer = ShiftWiseConv2d(8, 8, 5)
        self.classifier = nn.Linear(8, 4)

    def forward(self, inputs: Tensor, label: Tensor, mode: str = 'loss') -> dict:
        logits = self.classifier(self.layer(self.stem(inputs)).mean((2, 3)))
        return dict(loss=F.cross_entropy(logits, label))


def masks_after_an_exchange(work_dir, start: str, **cfg) -> dict[str, Tensor]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    settings = hook(
        start=start,
        grow='gradient',
        prune_rate=0.5,
        end_rate=0.5,
        interval=6,
        scope=r'(paths\.\d|stem)\.weight',
    )
    runner = build_runner(
        work_dir, None, SGD, max_iters=7, hooks=[settings], cfg=cfg, model=SmallModel()
    )
    runner.train()
    return sparsity.masks(runner.model)


@pytest.mark.parametrize('start', ['uniform', 'snip'])
def test_compiled_models_keep_and_grow_the_same_filters(tmp_path, start) -> None:
    """The gradients are looked at for the first time long after the model has been compiled."""
    plain = masks_after_an_exchange(tmp_path / 'plain', start)
    compiled = masks_after_an_exchange(tmp_path / 'compiled', start, compile=dict(backend='eager'))
    assert list(plain) == ['stem', 'layer.paths.0', 'layer.paths.1']
    assert all(torch.equal(compiled[name], mask) for name, mask in plain.items())


@pytest.mark.parametrize('grow', ['gradient', 'momentum'])
def test_layers_that_snip_was_the_first_to_compile_get_gradients(tmp_path, grow) -> None:
    """Compiled code may keep the hooks that it has found on the layers."""
    found = []
    for name in ('plain', 'compiled'):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = SmallModel()
        if name == 'compiled':
            model.layer.forward = torch.compile(model.layer.forward, backend='eager')
        settings = [hook(start='snip', grow=grow, prune_rate=0.5)]
        build_runner(tmp_path / name, None, SGD, hooks=settings, model=model).train()
        found.append(sparsity.masks(model))
    plain, compiled = found
    assert all(torch.equal(compiled[name], mask) for name, mask in plain.items())


@pytest.mark.parametrize('grow', ['gradient', 'momentum'])
def test_layers_without_a_gradient_are_named(tmp_path, grow) -> None:
    """They would grow the filters of the lowest index, whatever these are worth."""
    runner = build_runner(tmp_path, None, SGD, hooks=[hook(grow=grow)], model=SmallModel())
    runner.model.idle = ShiftWiseConv2d(8, 8, 5)
    with pytest.raises(SparsityError, match=r'2 of 4 layers got none: idle\.paths\.0, idle\.p'):
        runner.train()


def test_layers_without_a_gradient_are_named_where_numbers_go_by_it(tmp_path) -> None:
    """They would be emptied in favour of the others."""
    settings = hook(redistribution='momentum')
    runner = build_runner(tmp_path, None, SGD, hooks=[settings], model=SmallModel())
    runner.model.idle = ShiftWiseConv2d(8, 8, 5)
    message = r"redistribution='momentum' needs.* 2 of 4 layers .*redistribution='magnitude'$"
    with pytest.raises(SparsityError, match=message):
        runner.train()


def test_random_growth_needs_none(tmp_path) -> None:
    runner = build_runner(tmp_path, None, SGD, hooks=[hook(grow='random')], model=SmallModel())
    runner.model.idle = ShiftWiseConv2d(8, 8, 5)
    start = runner.model.idle.paths[0].mask.clone()
    runner.train()
    assert not torch.equal(runner.model.idle.paths[0].mask, start)


def test_layers_carry_no_hooks_once_training_is_over(tmp_path) -> None:
    runner = build_runner(tmp_path, None, SGD, hooks=[hook(grow='gradient')], model=SmallModel())
    runner.train()
    assert not any(layer._forward_hooks for _, layer in sparsity.masked_layers(runner.model))


def test_the_running_mean_of_mixed_precision_is_that_of_full_precision(
    tmp_path, monkeypatch
) -> None:
    """Also where the loss scale doubles at every step of the optimizer."""
    monkeypatch.setattr(amp_module, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_module, 'GradScaler', functools.partial(torch.amp.GradScaler, 'cpu'))
    mixed = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(growth_interval=1))
    means = {}
    for name, wrapper in (('full', SGD), ('mixed', {**SGD, **mixed})):
        torch.manual_seed(0)
        settings = hook(grow='momentum', interval=100)
        runner = build_runner(
            tmp_path / name, None, wrapper, max_iters=3, hooks=[settings], model=SmallModel()
        )
        runner.train()
        trained = next(h for h in runner.hooks if isinstance(h, DynamicSparsityHook))
        means[name] = trained._gradients.means
    assert runner.optim_wrapper.loss_scaler.get_scale() == 8 * 2.0**16
    for name, mean in means['full'].items():
        torch.testing.assert_close(means['mixed'][name].norm(), mean.norm(), rtol=0.05, atol=0.0)
