"""One of two processes that prune a network step by step; started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from conv_model import ConvModel
from toy import EMA, build_runner
from two_processes import assert_same_in_both, work

from mmsw import sparsity


def main(work_dir: str) -> None:
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
    torch.manual_seed(0)
    runner = build_runner(
        Path(work_dir),
        None,
        max_iters=6,
        hooks=[
            dict(type='SparsityReportHook'),
            EMA,
            dict(type='GradualPruningHook', sparsity=0.6, end=4, interval=2, by='snip'),
        ],
        model=ConvModel(),
        launcher='pytorch',
        cfg=dict(model_wrapper_cfg=wrapper),
    )
    runner.train()
    net = runner.model.module
    assert_same_in_both([*net.parameters(), *sparsity.masks(net).values()])


work(main)
