"""A schedule for a number of images: iterations, learning rate, warm-up and intervals."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch.distributed
from mmengine.config import Config
from mmengine.logging import print_log

from mmsw.component_name import component_name
from mmsw.errors import UsageError

from .settings import OwnData

_REFERENCE = 16  # images per step that own_data.learning_rate is for
_WARM_UP = 0.05  # share of the run
_LONGEST_WARM_UP = 1500
_WARM_UPS = ('LinearLR', 'ConstantLR')
_MOST_BETWEEN_LINES = 50  # iterations between two lines of the log


def fill_schedule(cfg: Config, own: OwnData, images: int | None) -> None:
    """Write all that depends on the length of training, in place, where the config has ``None``.

    Args:
        cfg: A training config in iterations.
        own: The settings.
        images: Number of training images; ``None`` if nobody knows, as without the data. The run
            is then as short as ``own_data.iterations`` allows.

    Raises:
        UsageError: If the config trains in epochs, and leaves the schedule to ``own_data``.
    """
    total = own.batch_size * number_of_processes()
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    # the noise of AdamW's steps goes with the root of the number of images
    _fill(optimizer, 'lr', float(f'{own.learning_rate * (total / _REFERENCE) ** 0.5:.3g}'))
    _fill(cfg.get('auto_scale_lr'), 'base_batch_size', total)
    _fill(cfg.get('train_dataloader'), 'batch_size', own.batch_size)
    loop = cfg.get('train_cfg') or {}
    if loop.get('max_iters', 0) is None:
        loop.max_iters = own.max_iters or iterations_for(own, images or 0, total)
        if images is None and not own.max_iters:
            print_log(
                f'own_data: the number of training images is not known, since {own.data_root} '
                f'(own_data.data_root) is not at hand, so a training has the fewest iterations, '
                f'{loop.max_iters}: read the config where the data are, or set own_data.max_iters',
                'current',
                logging.WARNING,
            )
    length = loop.get('max_iters')
    if not length:  # in epochs, by a config that knows better
        _check_schedulers(cfg)
        return
    if loop.get('val_interval', 0) is None:
        loop.val_interval = evaluation_interval(length)
    interval = loop.get('val_interval', length)
    _fill_schedulers(cfg, length)
    hooks = cfg.get('default_hooks') or {}
    for name, value in (('checkpoint', interval), ('logger', log_interval(interval))):
        if isinstance(hooks.get(name), dict):  # None there would not reach the data set's refusal
            hooks[name].setdefault('interval', value)


def _fill(part: Any, key: str, value: Any) -> None:
    if isinstance(part, dict) and part.get(key, 0) is None:
        part[key] = value


def number_of_processes() -> int:
    """Processes that train together, as torchrun tells or as they have met."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    if {'RANK', 'WORLD_SIZE', 'MASTER_ADDR'} <= os.environ.keys():
        return int(os.environ['WORLD_SIZE'])
    return 1


def iterations_for(own: OwnData, images: int, total: int) -> int:
    """Iterations in which every image is seen ``own_data.passes`` times, in round numbers.

    Args:
        own: Its ``iterations`` are the fewest and the most.
        images: Number of training images.
        total: Images per step of all processes.
    """
    fewest, most = own.iterations
    wanted = own.passes * images / total
    unit = 100 if wanted >= 1000 else 50
    return int(min(most, max(fewest, -(-wanted // unit) * unit)))


def evaluation_interval(length: int) -> int:
    """Iterations between two evaluations: ten in a long run, five in a short one.

    The interval divides the run where about so many evaluations can.
    """
    wanted = 10 if length >= 5000 else min(5, length)
    near = [wanted, *(wanted + step * sign for step in (1, 2) for sign in (1, -1))]
    for number in near:
        if number > 0 and length % number == 0:
            return length // number
    return -(-length // wanted)


def log_interval(interval: int) -> int:
    """Iterations between two lines of the log: a divisor of the interval of evaluations."""
    most = min(_MOST_BETWEEN_LINES, max(1, interval // 4))
    return next(number for number in range(most, 0, -1) if interval % number == 0)


def _check_schedulers(cfg: Config) -> None:
    """Refuse schedulers without an end, which would be that of a run in iterations."""
    for index, scheduler in enumerate(cfg.get('param_scheduler') or ()):
        if isinstance(scheduler, dict) and scheduler.get('end', 0) is None:
            raise UsageError(
                f'param_scheduler.{index}.end is empty: own_data fills it in for training in '
                'iterations. A config in epochs needs a param_scheduler of its own'
            )


def _fill_schedulers(cfg: Config, length: int) -> None:
    """Ends of the schedulers; a run of a few iterations has no warm-up."""
    schedulers = cfg.get('param_scheduler')
    if not isinstance(schedulers, (list, tuple)):
        return
    warm_up = min(_LONGEST_WARM_UP, max(2, round(_WARM_UP * length)))
    if warm_up >= length:
        warm_up = 0
        schedulers = [item for item in schedulers if not _is_open_warm_up(item)]
        cfg.param_scheduler = schedulers
    for scheduler in schedulers:
        _fill(scheduler, 'begin', warm_up)
        _fill(scheduler, 'end', warm_up if _is_open_warm_up(scheduler) else length)


def _is_open_warm_up(scheduler: dict) -> bool:
    return component_name(scheduler.get('type')) in _WARM_UPS and scheduler.get('end', 0) is None
