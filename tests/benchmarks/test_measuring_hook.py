"""The hook of the transfer benchmark where several processes train one network."""

from __future__ import annotations

from types import SimpleNamespace

from mmsw.benchmarks import hook as hook_module
from mmsw.benchmarks.transfer.hook import TransferHook


def test_every_process_takes_part_in_saving(tmp_path, monkeypatch):
    """A save ends with a message from the first process to all: nobody may be missing."""
    saved = []
    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        iter=2,
        max_iters=2,
        save_checkpoint=lambda folder, name, **parts: saved.append(name),
    )
    monkeypatch.setattr(hook_module, 'is_main_process', lambda: False)
    scores = {'mIoU': ('mIoU', 1.0)}
    hook = TransferHook('scratch', None, None, False, 0, scores, digest='digest', begun=0.0)
    hook.after_val_epoch(runner, {'mIoU': 50.0})
    hook.after_train(runner)
    assert saved == ['latest.pth', 'final.pth']
    assert list(tmp_path.iterdir()) == []  # the first process writes them
