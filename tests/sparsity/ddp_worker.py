"""One of two processes that train the toy model together; started by torchrun from the tests."""

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


def main(work_dir: str, checkpoint: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    runner = build_runner(
        Path(work_dir),
        checkpoint,
        launcher='pytorch',
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', broadcast_buffers=True, device_ids=None
            )
        ),
    )
    runner.train()
    weights = torch.cat(
        [layer.weight.flatten() for _, layer in sparsity.masked_layers(runner.model)]
    ).detach()
    everywhere = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(everywhere, weights)
    assert dist.get_world_size() == 2
    assert all(torch.equal(other, weights) for other in everywhere), 'ranks differ'
    dist.barrier()  # no rank leaves while another still talks to it
    del runner
    gc.collect()  # what of it hangs in cycles holds the process group
    dist.destroy_process_group()
    # All is asserted. A thread of torch that still runs would abort the interpreter's own exit.
    sys.stdout.flush()
    os._exit(0)


if __name__ == '__main__':
    main(*sys.argv[1:])
