"""One of two processes that train together; started by torchrun from the tests."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny_run import tiny_config

from mmsw import sparsity
from mmsw.apis import build_runner
from mmsw.apis.cli import leave, run_reporting_errors
from mmsw.engine.hooks import SparsityLostError

RANK = int(os.environ['RANK'])
SECONDS = 20  # in which both processes must have ended


@HOOKS.register_module()
class RevivePruned(Hook):
    """Makes pruned weights non-zero before the first checkpoint is saved."""

    priority = 'VERY_HIGH'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for _, layer in sparsity.masked_layers(runner.model):
            layer.weight.data.add_(1.0)


def guard(folder: Path) -> None:
    """Both processes end with the error of the guard, which runs in the first one alone."""
    hooks = [
        dict(type='DynamicSparsityHook', start='erk', sparsity=0.5, end_iter=0),
        dict(type='SparsityReportHook', fixed_masks=True),
        dict(type='RevivePruned'),
    ]
    runner = build_runner(tiny_config(folder, 4, custom_hooks=hooks), launcher='pytorch')
    try:
        runner.train()
    except SparsityLostError as error:
        (folder / f'error_{RANK}').write_text(str(error))
    waited_until = time.monotonic() + SECONDS
    while not all((folder / f'error_{rank}').is_file() for rank in range(2)):
        assert time.monotonic() < waited_until, 'the other process does not know of the error'
        time.sleep(0.1)


class TapeBackend(LocalBackend):
    """Hands out copies of files, and notes each."""

    @contextmanager
    def get_local_path(self, filepath: str) -> Iterator[str]:
        path = Path(filepath.split('://')[1])
        copy = path.with_name(f'copy_{RANK}')
        shutil.copy(path, copy)
        path.with_name(f'fetched_{RANK}').touch()
        yield str(copy)
        copy.unlink()


def fetch(folder: Path) -> None:
    """Both start from a file that is fetched; then from one that is not there."""
    register_backend('tape', TapeBackend, prefixes='tape')
    cfg = tiny_config(folder, load_from=f'tape://{folder}/start.pth')
    runner = build_runner(cfg, launcher='pytorch')
    runner.load_or_resume()
    saved = torch.load(folder / 'start.pth', weights_only=True)
    own = dict(runner.model.module.named_parameters())
    assert all(torch.equal(own[name], saved[name]) for name in own)
    runner.load_checkpoint(f'tape://{folder}/absent.pth')


if __name__ == '__main__':
    torch.set_num_threads(1)
    name, folder = sys.argv[1:]
    leave(run_reporting_errors(lambda: globals()[name](Path(folder))))
