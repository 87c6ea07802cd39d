"""Whether batch norm has more than one value to normalize by."""

from __future__ import annotations

from typing import Any

from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from torch.utils.hooks import RemovableHandle

from mmsw.engine.model_wrapper import unwrapped
from mmsw.errors import UsageError

_ONE_PASS = (DefaultSampler, RandomSampler, SequentialSampler)  # whose last batch may be smaller


class BatchNormCheckHook(Hook):
    """Refuses in the first iteration a batch norm that some batch gives one value per channel.

    That is so where one image is pooled to a map of 1 x 1. torch stops there with an error, which
    would come after a whole pass over the data where the last batch alone has one image. Where no
    batch has one image, nothing is looked at.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    def before_train(self, runner: Runner) -> None:
        """Look at the first iteration, if a batch of one image will come."""
        loader = getattr(runner.train_loop, 'dataloader', None)
        if not isinstance(loader, DataLoader) or runner.cfg.get('compile'):
            return
        where = _batch_of_one(loader, runner.max_iters)
        if where is None:
            return
        for name, module in unwrapped(runner.model).named_modules():
            synced = isinstance(module, nn.SyncBatchNorm) and runner.world_size > 1
            if isinstance(module, _BatchNorm) and not synced:
                check = _Check(name, loader.batch_size, where)
                self._handles.append(module.register_forward_pre_hook(check))

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """The first iteration went well."""
        self._stop()

    def after_train(self, runner: Runner) -> None:
        """A run without an iteration."""
        self._stop()

    def _stop(self) -> None:
        while self._handles:
            self._handles.pop().remove()


class _Check:
    """Called before a batch norm; raises if an image gives it one value per channel.

    Attributes:
        for_one_position: Blocks may leave it out for larger maps, and run fused.
    """

    for_one_position = True

    def __init__(self, name: str, batch_size: int, where: str) -> None:
        self.name, self.batch_size, self.where = name, batch_size, where

    def __call__(self, module: nn.Module, args: tuple) -> None:
        if not (module.training and args):
            return
        images, channels = args[0].shape[:2]
        if images == self.batch_size and args[0].numel() == images * channels:
            groups = 8 if channels > 8 and channels % 8 == 0 else 1
            raise UsageError(
                f'batch norm {self.name} needs more than one image, since an image gives it one '
                f'value per channel, and {self.where}, or give that part of the model another '
                f"norm, for instance norm_cfg=dict(type='GN', num_groups={groups})"
            )


def _batch_of_one(loader: DataLoader, iterations: int) -> str | None:
    """Where in a training a batch has one image, and which options prevent that."""
    if loader.batch_size == 1:
        return (
            'train_dataloader.batch_size is 1: set --cfg-options train_dataloader.batch_size=2 or '
            'more'
        )
    sampler = loader.sampler
    if not (loader.batch_size and isinstance(sampler, _ONE_PASS)) or loader.drop_last:
        return None
    if len(sampler) % loader.batch_size != 1 or iterations < len(loader):
        return None
    return (
        f'the last batch of a pass has one ({len(sampler)} images, '
        f'train_dataloader.batch_size {loader.batch_size}): set --cfg-options '
        'train_dataloader.drop_last=True'
    )
