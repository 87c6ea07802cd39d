"""One of two processes that train the toy model with changing masks; started by torchrun."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from toy import build_runner

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
        for tensors in (now, dict(runner.model.module.named_parameters())):
            flat = torch.cat([t.detach().flatten().float() for t in tensors.values()])
            everywhere = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
            dist.all_gather(everywhere, flat)
            assert dist.get_world_size() == 2
            assert all(torch.equal(other, flat) for other in everywhere), 'ranks differ'
    dist.barrier()  # no rank leaves while another still talks to it
    del runner
    gc.collect()  # what of it hangs in cycles holds the process group
    dist.destroy_process_group()
    # All is asserted. A thread of torch that still runs would abort the interpreter's own exit.
    sys.stdout.flush()
    os._exit(0)


if __name__ == '__main__':
    main(*sys.argv[1:])
