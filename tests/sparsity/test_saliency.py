"""What SNIP measures before training under mmengine's real Runner: no trace, no layer forgotten."""

from __future__ import annotations

import copy
import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from measured_on_a_copy import gradients_of_a_copy
from mmcv.cnn.bricks import DropPath
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor
from mmengine.runner import Runner
from tiny_run import tiny_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from toy import POINTWISE, ToyData, ToyModel, build_runner
from toy import dynamic_hook as hook

from mmsw import sparsity
from mmsw.apis import build_runner as portable_runner
from mmsw.engine.saliency import loader_gradients
from mmsw.errors import SparsityError


def test_snip_leaves_no_trace(tmp_path) -> None:
    """What a run sees, but for the masks, is the same whether saliency was measured or not."""

    class Compare(Hook):
        priority = 'LOWEST'

        def before_train(self, runner) -> None:
            self.states = (
                torch.get_rng_state(),
                torch.tensor(np.random.get_state()[1].astype(np.int64)),
                *(b.clone() for n, b in runner.model.named_buffers() if not n.endswith('mask')),
            )
            self.modes = [module.training for module in runner.model.modules()]
            assert all(parameter.grad is None for parameter in runner.model.parameters())

        def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
            if batch_idx == 0:
                self.batch = data_batch['inputs'].clone()

    found = {}
    for start in ('snip', 'uniform'):
        compare = Compare()
        hooks = [hook(start=start, snip_batches=2), compare]
        build_runner(tmp_path / start, None, hooks=hooks, max_iters=1).train()
        found[start] = compare
    snip, uniform = found['snip'], found['uniform']
    assert all(torch.equal(a, b) for a, b in zip(snip.states, uniform.states, strict=True))
    assert snip.modes == uniform.modes
    assert torch.equal(snip.batch, uniform.batch)


def recorder_of(model: nn.Module) -> sparsity.DenseGradients:
    return sparsity.DenseGradients(dict(sparsity.masked_layers(model)))


class Traces:
    """What a measurement could leave behind in a model."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self.values = copy.deepcopy(model.state_dict())
        self.buffers = [buffer for module in modules for buffer in module._buffers.values()]
        self.gradients = [parameter.grad for parameter in model.parameters()]
        self.attributes = [dict(vars(module)) for module in modules]

    def assert_same(self, other: Traces) -> None:
        assert self.values.keys() == other.values.keys()
        assert all(torch.equal(other.values[key], value) for key, value in self.values.items())
        pairs = zip(
            [*self.buffers, *self.gradients], [*other.buffers, *other.gradients], strict=True
        )
        assert all(one is another for one, another in pairs)
        for one, another in zip(self.attributes, other.attributes, strict=True):
            assert one.keys() == another.keys()
            assert all(value is another[name] for name, value in one.items())


class Shaky(BaseDataPreprocessor):
    """Draws noise, and remembers how often it was asked: in all that a module can remember in."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('seen', torch.zeros(()))
        self.register_buffer('replaced', torch.zeros(()))
        self.register_buffer('size', None)
        self.weight = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.times = 0

    def forward(self, data: dict, training: bool = False) -> dict:
        self.seen += 1
        self.replaced = self.replaced + 1
        self.size = torch.tensor(data['inputs'].shape)
        self.weight += 1
        self.times += 1
        self.last = data
        return {**data, 'inputs': data['inputs'] + torch.rand_like(data['inputs']) * self.times}


def pruned(model: ToyModel) -> None:
    """Half of every masked layer, ordinary ones too."""
    sparsity.attach_masks(model, POINTWISE)
    for name, mask in sparsity.masks(model).items():
        sparsity.set_masks(model, {name: (torch.arange(mask.numel()) % 2 == 0).view(mask.shape)})


def recomputed(model: ToyModel) -> None:
    for stage in model.backbone.stages:
        for block in stage:
            block.with_cp = True


def randomly_deep(model: ToyModel) -> None:
    for stage in model.backbone.stages:
        for block in stage:
            block.drop_path = DropPath(0.3)


def shaky(model: ToyModel) -> None:
    model.data_preprocessor = Shaky()


@pytest.mark.parametrize('change', [pruned, recomputed, randomly_deep, shaky])
def test_the_gradients_are_those_of_the_model_which_stays_as_it_was(tmp_path, change) -> None:
    runner = build_runner(tmp_path, None, hooks=[])
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    model = runner.model
    change(model)
    model.train()
    model.classifier.eval()
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    before = Traces(model)
    random_state = torch.get_rng_state()
    found = loader_gradients(runner.model, runner.train_dataloader, recorder_of(model), 2, seed=3)
    before.assert_same(Traces(model))
    assert bool((model.classifier.weight.grad == 1).all())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not model.classifier.training
    assert model.backbone.training
    assert getattr(model.data_preprocessor, 'times', 0) == 0
    expected = gradients_of_a_copy(runner, 2, seed=3)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert bool((gradient != 0).any())
        assert torch.equal(gradient, expected[name])


def test_a_forward_pass_that_fails_leaves_no_trace_either(tmp_path) -> None:
    runner = build_runner(tmp_path, None, hooks=[])
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    model, recorder = runner.model, recorder_of(runner.model)
    shaky(model)
    before = Traces(model)
    model.backbone.stages[3].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loader_gradients(runner.model, runner.train_dataloader, recorder, 1, seed=3)
    before.assert_same(Traces(model))
    assert not recorder.sums


def toy_run(work_dir: Path, hooks: list, settings: dict) -> Runner:
    sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    return build_runner(work_dir, None, sgd, hooks=hooks, cfg=settings, max_iters=1)


def tiny_run(work_dir: Path, hooks: list, settings: dict) -> Runner:
    cfg = tiny_config(work_dir, 1, custom_hooks=[hooks[0]], **settings)
    runner = portable_runner(cfg)
    runner.register_hook(hooks[1])
    return runner


class FirstStep(Hook):
    """Sees what SNIP has left, and the weights after one step of the optimizer."""

    priority = 'LOWEST'

    def before_run(self, runner) -> None:
        buffers = runner.model.named_buffers()
        self.buffers = {n: b.clone() for n, b in buffers if not n.endswith('mask')}

    def before_train(self, runner) -> None:
        buffers = dict(runner.model.named_buffers())
        assert all(torch.equal(buffers[name], value) for name, value in self.buffers.items())
        assert all(parameter.grad is None for parameter in runner.model.parameters())
        self.masks = sparsity.masks(runner.model)

    def after_train(self, runner) -> None:
        self.weights = [parameter.detach().clone() for parameter in runner.model.parameters()]


@pytest.mark.parametrize(
    ('run', 'part'),
    [
        (toy_run, 'classifier'),
        (toy_run, 'backbone.stages.0'),
        (tiny_run, 'head'),
        (tiny_run, 'backbone.stages.0'),
    ],
)
def test_parts_that_are_computed_twice_change_nothing(tmp_path, run, part) -> None:
    """mmengine replaces the ``forward`` of the part by a function that holds the part itself."""
    steps = []
    for name, settings in (('plain', {}), ('twice', dict(activation_checkpointing=[part]))):
        torch.manual_seed(0)
        steps.append(FirstStep())
        run(tmp_path / name, [hook(start='snip', end_iter=0), steps[-1]], settings).train()
    plain, twice = steps
    assert plain.masks.keys() == twice.masks.keys()
    assert all(torch.equal(mask, twice.masks[name]) for name, mask in plain.masks.items())
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, twice.weights, strict=True))


class WithSideLoss(ToyModel):
    """Takes the map of a stage from a hook, a function that is bound to this very model."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []
        self.backbone.stages[0].register_forward_hook(lambda *args: self.maps.append(args[-1]))

    def forward(self, inputs: Tensor, label: Tensor, mode: str = 'loss') -> dict | Tensor:
        losses = super().forward(inputs, label, mode)
        return {**losses, 'loss_side': self.maps.pop().square().mean()}


def test_models_that_cannot_be_copied_are_looked_at(tmp_path) -> None:
    model = WithSideLoss()
    model.lock, model.logger = threading.Lock(), MMLogger.get_current_instance()
    runner = build_runner(tmp_path, None, hooks=[hook(start='snip')], model=model)
    model.runner = [runner]
    with pytest.raises(TypeError, match='pickle'):
        copy.deepcopy(model)
    runner.train()
    assert not model.maps
    assert sparsity.report(model).total.density == 0.5


def test_snip_looks_behind_random_depth(tmp_path) -> None:
    """Blocks that every image of the batch skips would be pruned to the bone."""
    torch.manual_seed(0)
    model = ToyModel()
    chosen = {}
    for name, drop_path in (('never', nn.Identity()), ('skipped', DropPath(0.999))):
        deep = copy.deepcopy(model)
        blocks = [block for stage in deep.backbone.stages for block in stage][:3]
        for block in blocks:
            block.drop_path = drop_path
        settings = [hook(start='snip', end_iter=0)]
        runner = build_runner(tmp_path / name, None, hooks=settings, model=deep, max_iters=1)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        found = loader_gradients(
            runner.model, runner.train_dataloader, recorder_of(deep), 1, seed=0
        )
        silent = [key for key, gradient in found.items() if not bool(gradient.any())]
        assert len(silent) == (6 if name == 'skipped' else 0), 'two paths each'
        runner.train()
        chosen[name] = sparsity.masks(deep)
        assert all(block.drop_path.training for block in blocks)
    for name, mask in chosen['never'].items():
        assert torch.equal(chosen['skipped'][name], mask)


class Stream(IterableDataset):
    """The same images again and again."""

    def __iter__(self):
        return itertools.cycle(ToyData())


class Unending(Dataset):
    """Images by number, nobody knows how many."""

    def __getitem__(self, index: int) -> dict:
        return ToyData()[index % 8]


@pytest.mark.parametrize('data', [Stream, Unending])
def test_snip_needs_data_with_a_length(tmp_path, data) -> None:
    runner = build_runner(tmp_path, None, hooks=[hook(start='snip')])
    sampler = None if data is Stream else range(64)
    runner._train_dataloader = DataLoader(data(), batch_size=4, sampler=sampler)
    with pytest.raises(SparsityError, match="choose start='erk' or 'uniform'"):
        runner.train()
