"""One of two processes that learn together from one teacher; started by torchrun from the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lessons import segmentor, trained, training

from mmsw.engine import DistillationHook
from mmsw.engine.model_wrapper import unwrapped


def main(folder: Path, config: str, checkpoint: str) -> None:
    torch.set_num_threads(1)
    teacher = dict(config=config, checkpoint=checkpoint)
    hook = dict(type='DistillationHook', teacher=teacher, logits=dict(), features=['backbone'])
    cfg = training(folder / 'work', segmentor(), [hook], iterations=2)
    runner = trained(cfg, launcher='pytorch')
    learned = unwrapped(runner.model)
    known = next(h for h in runner.hooks if isinstance(h, DistillationHook)).teacher.model
    torch.save(
        dict(
            parameters={name: value.detach() for name, value in learned.named_parameters()},
            teacher=sum(float(value.double().sum()) for value in known.parameters()),
        ),
        folder / f'rank_{runner.rank}.pth',
    )


if __name__ == '__main__':
    main(Path(sys.argv[1]), *sys.argv[2:])
