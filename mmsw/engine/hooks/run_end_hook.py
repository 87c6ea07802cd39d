"""When a training ends: the time that is left with validation in it, and the time on the clock."""

from __future__ import annotations

import datetime
import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner

from mmsw.registration import register


@register(HOOKS)
class RunEndHook(Hook):
    """Adds the validations that are still to come to the remaining time that mmengine logs.

    mmengine counts the training iterations alone. How long a validation takes is known after the
    first one of the run.
    """

    priority = 55  # behind IterTimerHook, which computes the time, and before LoggerHook

    def __init__(self) -> None:
        self._began = 0.0
        self._seconds: list[float] = []  # of the validations of this run

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to measure."""
        self._began = time.monotonic()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Note how long it took."""
        self._seconds.append(time.monotonic() - self._began)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Add what validation will take."""
        info = runner.message_hub.runtime_info
        if self._seconds and 'eta' in info:
            mean = sum(self._seconds) / len(self._seconds)
            left = info['eta'] + mean * validations_left(runner)
            runner.message_hub.update_info('eta', left)


def validations_left(runner: Runner) -> int:
    """How many validations lie between the present iteration and the end of a training."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return 0
    if isinstance(loop, IterBasedTrainLoop):
        next_one, total = loop.iter + 1, loop.max_iters  # the iteration that just ended counts
    elif isinstance(loop, EpochBasedTrainLoop):
        next_one, total = loop.epoch + 1, loop.max_epochs
    else:
        return 0
    interval, first = loop.val_interval, max(loop.val_begin, next_one)
    regular = max(0, total // interval - (first - 1) // interval)
    at_the_end = total % interval != 0 and total >= first
    return regular + int(at_the_end)


def with_time_of_end(processor: LogProcessor) -> LogProcessor:
    """Let a log processor say beside the time that is left when that will be.

    Args:
        processor: Of any class; lines without a remaining time stay as they are.

    Returns:
        The same.
    """
    plain = processor.get_log_after_iter

    def get_log_after_iter(runner: Runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        tag, line = plain(runner, batch_idx, mode)
        seconds = runner.message_hub.runtime_info.get('eta')
        if mode == 'train' and seconds is not None:
            left = f'eta: {datetime.timedelta(seconds=int(seconds))}'
            line = line.replace(f'{left} ', f'{left} (ends {time_of_end(seconds)}) ', 1)
        return tag, line

    processor.get_log_after_iter = get_log_after_iter
    return processor


def time_of_end(seconds: float, now: datetime.datetime | None = None) -> str:
    """The time on the clock after some seconds; with the date if that is another day.

    Args:
        seconds: From now.
        now: For another present.

    Returns:
        For instance ``'18:03'`` or ``'2026-11-27 03:14'``.
    """
    now = now or datetime.datetime.now()
    end = now + datetime.timedelta(seconds=seconds)
    return f'{end:%H:%M}' if end.date() == now.date() else f'{end:%Y-%m-%d %H:%M}'
