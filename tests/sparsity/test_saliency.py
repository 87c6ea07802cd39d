"""What SNIP measures before training under mmengine's real Runner: no trace, no layer forgotten."""

from __future__ import annotations

import copy
import itertools
import threading

import numpy as np
import pytest
import torch
from measured_in_place import gradients_in_place
from mmcv.cnn.bricks import DropPath
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from toy import POINTWISE, ToyData, ToyModel, build_runner
from toy import dynamic_hook as hook

from mmsw import sparsity
from mmsw.engine.saliency import batch_gradients
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


class Shaky(BaseDataPreprocessor):
    """Draws noise, and remembers how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('seen', torch.zeros(()))
        self.times = 0

    def forward(self, data: dict, training: bool = False) -> dict:
        self.seen += 1
        self.times += 1
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
    state = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    found = batch_gradients(runner, dict(sparsity.masked_layers(model)), 2, seed=3)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.classifier.training
    assert model.backbone.training
    assert getattr(model.data_preprocessor, 'times', 0) == 0
    expected = gradients_in_place(runner, 2, seed=3)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert bool((gradient != 0).any())
        assert torch.equal(gradient, expected[name])


def test_models_that_cannot_be_copied_are_refused(tmp_path) -> None:
    runner = build_runner(tmp_path, None, hooks=[hook(start='snip')])
    runner.model.lock = threading.Lock()
    with pytest.raises(SparsityError, match=r"ToyModel cannot be copied \(TypeError: .*'uniform'"):
        runner.train()


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
        found = batch_gradients(runner, dict(sparsity.masked_layers(deep)), 1, seed=0)
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
