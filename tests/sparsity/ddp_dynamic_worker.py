"""One of two processes that train the toy model with changing masks; started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from toy import build_runner
from two_processes import assert_same_in_both, leave

from mmsw import sparsity


def main(work_dir: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    for grow in ('random', 'gradient', 'momentum'):
        runner = build_runner(
            Path(work_dir) / grow,
            None,
            max_iters=6,
            hooks=[
                dict(type='SparsityReportHook'),
                dict(
                    type='DynamicSparsityHook',
                    start='snip',
                    sparsity=0.5,
                    interval=1,
                    prune_rate=0.5,
                    grow=grow,
                    align_interval=3,
                    # each process with a generator of its own: the first one's choice must hold
                    seed=dist.get_rank(),
                ),
            ],
            launcher='pytorch',
            cfg=dict(
                model_wrapper_cfg=dict(
                    type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None
                )
            ),
        )
        start = sparsity.masks(runner.model)
        runner.train()
        now = sparsity.masks(runner.model)
        assert any(not torch.equal(start[name], mask) for name, mask in now.items())
        assert_same_in_both(now.values())
        assert_same_in_both(runner.model.module.parameters())
    del runner
    leave()


if __name__ == '__main__':
    main(*sys.argv[1:])
