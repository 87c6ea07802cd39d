"""One of two processes that keep the zeros of a plain model; started by torchrun from the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import torch
import torch.distributed as dist
from plain_model import KEEP, PRUNED, PlainModel
from toy import build_runner
from two_processes import assert_same_in_both, work

from mmsw import sparsity


def main(work_dir: str, checkpoint: str) -> None:
    runner = build_runner(
        Path(work_dir),
        None,
        hooks=[KEEP],
        model=PlainModel(),
        load_from=checkpoint,
        launcher='pytorch',
        cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)),
    )
    net = runner.model.module
    if dist.get_rank() == 1:
        with torch.no_grad():
            net.correction.weight[0] = 1.0  # as if pruned, in this process alone
    runner.train()
    masked = dict(sparsity.masked_layers(net))
    assert all(layer.mask.all() for name, layer in masked.items() if name not in PRUNED)
    layers = {name: masked[name] for name in PRUNED}
    assert_same_in_both(layer.weight for layer in layers.values())
    assert_same_in_both(layer.mask for layer in layers.values())


if __name__ == '__main__':
    work(main)
