"""Training the toy model while its masks are watched, and comparing what two runs wrote."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.hooks import Hook
from toy import build_runner

from mmsw import sparsity
from mmsw.sparsity import masks

ADAMW = dict(type='AdamW', lr=1e-2, weight_decay=0.05)
TOTAL = 2856  # filters of the toy network


class Watch(Hook):
    """Notes after every iteration which weights are kept, and that no other one is not zero."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def before_train(self, runner) -> None:
        self._look(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._look(runner)
        for state in runner.optim_wrapper.optimizer.state.values():
            for key in ('exp_avg', 'exp_avg_sq', 'momentum_buffer'):
                assert state.get(key) is None or torch.isfinite(state[key]).all()

    def _look(self, runner) -> None:
        now = masks(runner.model)
        assert sparsity.lost_zeros(runner.model.state_dict(), now) == {}
        optimizer = runner.optim_wrapper.optimizer
        for name, layer in sparsity.masked_layers(runner.model):
            for value in optimizer.state.get(layer.weight, {}).values():
                if value is not None and value.shape == layer.weight.shape:
                    assert torch.count_nonzero(value[~now[name]]) == 0
        self.seen.append(now)

    def changes(self) -> list[int]:
        """Iterations after which the masks were others than before."""
        pairs = zip(self.seen, self.seen[1:], strict=False)
        return [
            step
            for step, (old, new) in enumerate(pairs, 1)
            if any(not torch.equal(old[name], new[name]) for name in old)
        ]


def train(work_dir: Path, *hooks, checkpoint=None, optimizer=None, max_iters=6, **kwargs):
    watch = Watch()
    runner = build_runner(
        work_dir,
        checkpoint,
        dict(type='OptimWrapper', optimizer=ADAMW) if optimizer is None else optimizer,
        max_iters=max_iters,
        hooks=[dict(type='SparsityReportHook'), *hooks, watch],
        **kwargs,
    )
    runner.train()
    return runner, watch


def assert_same(one, other, where='') -> None:
    """Equal to the bit, whatever is nested in what; but for the log and times."""
    if isinstance(other, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(other, dict):
        assert set(one) == set(other), where
        for key in other:
            if key not in ('message_hub', 'meta'):
                assert_same(one[key], other[key], f'{where}.{key}')
    elif isinstance(other, (list, tuple)):
        assert len(one) == len(other), where
        for index, item in enumerate(other):
            assert_same(one[index], item, f'{where}[{index}]')
    else:
        assert one == other, where
