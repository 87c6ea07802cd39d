"""One of two processes that train the toy model together; started by torchrun from the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from toy import build_runner
from two_processes import assert_same_in_both, work

from mmsw import sparsity


def main(work_dir: str, checkpoint: str) -> None:
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
    assert_same_in_both(layer.weight for _, layer in sparsity.masked_layers(runner.model))


if __name__ == '__main__':
    work(main)
