"""One of two processes that train the toy model with changing masks; started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.runner import Runner
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from measured_on_a_copy import gradients_of_a_copy
from toy import ToyModel, build_runner, dynamic_hook
from two_processes import assert_same_in_both, work

from mmsw import sparsity
from mmsw.engine.saliency import loader_gradients


def in_two(work_dir: Path, hooks: list, **kwargs) -> Runner:
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
    cfg = dict(model_wrapper_cfg=wrapper)
    return build_runner(
        work_dir, None, max_iters=6, hooks=hooks, launcher='pytorch', cfg=cfg, **kwargs
    )


RULES = {
    'random': {},
    'gradient': dict(grow='gradient'),
    'momentum': dict(grow='momentum'),
    'redistributed': dict(grow='gradient', prune='set', redistribution='momentum'),
}


def build(work_dir: Path, rules: dict, seed: int, **kwargs) -> Runner:
    settings = dict(start='snip', interval=1, prune_rate=0.5, align_interval=3, **rules)
    hooks = [dict(type='SparsityReportHook'), dynamic_hook(**settings, seed=seed)]
    return in_two(work_dir, hooks, **kwargs)


class InOneGroup(ToyModel):
    """Holds a process group, as synchronised norms do, and takes the mean of all processes off."""

    def __init__(self) -> None:
        super().__init__()
        self.group = dist.group.WORLD

    def forward(self, inputs: Tensor, label: Tensor, mode: str = 'loss') -> dict | Tensor:
        mean = inputs.mean()
        dist.all_reduce(mean, group=self.group)
        return super().forward(inputs - mean / dist.get_world_size(), label, mode)


def look_before_training(work_dir: Path) -> None:
    """What SNIP measures is what a copy of the model shows, and the same in both processes."""
    runner = in_two(work_dir, [], model=InOneGroup())
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    before = [tensor.clone() for tensor in runner.model.module.state_dict().values()]
    layers = dict(sparsity.masked_layers(runner.model.module))
    found = loader_gradients(
        runner.model.module,
        runner.train_dataloader,
        sparsity.DenseGradients(layers),
        2,
        seed=0,
        rank=runner.rank,
    )
    after = runner.model.module.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert_same_in_both(found.values())
    expected = gradients_of_a_copy(runner, 2, seed=0)
    assert found.keys() == expected.keys() == layers.keys()
    assert all(torch.equal(gradient, expected[name]) for name, gradient in found.items())


def main(work_dir: str) -> None:
    look_before_training(Path(work_dir) / 'look')
    for name, rules in RULES.items():
        folder = Path(work_dir) / name
        # each process with a generator of its own: the first one's choice must hold
        runner = build(folder, rules, seed=dist.get_rank())
        start = sparsity.masks(runner.model)
        runner.train()
        now = sparsity.masks(runner.model)
        assert any(not torch.equal(start[layer], mask) for layer, mask in now.items())
        assert_same_in_both(now.values())
        assert_same_in_both(runner.model.module.parameters())

        torch.manual_seed(1)  # other weights, which the checkpoint replaces
        resumed = build(
            folder / 'resumed',
            rules,
            seed=dist.get_rank(),
            resume=True,
            load_from=str(folder / 'iter_2.pth'),
        )
        resumed.train()
        assert_same_in_both(resumed.model.module.parameters())
        pairs = zip(resumed.model.parameters(), runner.model.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), name
        again = sparsity.masks(resumed.model)
        assert all(torch.equal(again[layer], mask) for layer, mask in now.items()), name


if __name__ == '__main__':
    work(main)
