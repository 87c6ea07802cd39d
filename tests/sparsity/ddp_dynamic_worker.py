"""One of two processes that train the toy model with changing masks; started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.runner import Runner

sys.path.insert(0, str(Path(__file__).parent))
from toy import build_runner, dynamic_hook
from two_processes import assert_same_in_both, leave

from mmsw import sparsity


def build(work_dir: Path, grow: str, seed: int, **kwargs) -> Runner:
    settings = dict(start='snip', interval=1, prune_rate=0.5, grow=grow, align_interval=3)
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
    return build_runner(
        work_dir,
        None,
        max_iters=6,
        hooks=[dict(type='SparsityReportHook'), dynamic_hook(**settings, seed=seed)],
        launcher='pytorch',
        cfg=dict(model_wrapper_cfg=wrapper),
        **kwargs,
    )


def main(work_dir: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    for grow in ('random', 'gradient', 'momentum'):
        folder = Path(work_dir) / grow
        # each process with a generator of its own: the first one's choice must hold
        runner = build(folder, grow, seed=dist.get_rank())
        start = sparsity.masks(runner.model)
        runner.train()
        now = sparsity.masks(runner.model)
        assert any(not torch.equal(start[name], mask) for name, mask in now.items())
        assert_same_in_both(now.values())
        assert_same_in_both(runner.model.module.parameters())

        torch.manual_seed(1)  # other weights, which the checkpoint replaces
        resumed = build(
            folder / 'resumed',
            grow,
            seed=dist.get_rank(),
            resume=True,
            load_from=str(folder / 'iter_2.pth'),
        )
        resumed.train()
        assert_same_in_both(resumed.model.module.parameters())
        pairs = zip(resumed.model.parameters(), runner.model.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), grow
        again = sparsity.masks(resumed.model)
        assert all(torch.equal(again[name], mask) for name, mask in now.items()), grow
    del runner, resumed
    leave()


if __name__ == '__main__':
    main(*sys.argv[1:])
