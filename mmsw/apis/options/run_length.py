"""Training for longer or shorter than a config says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config

from mmsw.component_name import component_name
from mmsw.errors import UsageError
from mmsw.whole_number import whole_number

from .changes import Changes

_WARM_UPS = ('LinearLR', 'ConstantLR', 'LinearParamScheduler', 'ConstantParamScheduler')
_LONGEST_WARM_UP = 0.1  # share of the run, where the config has no longer one
_FOR_EVER = 1_000_000_000  # how mmengine writes infinity
# Where hooks begin and end.
_OF_HOOKS = (
    *('begin_iter', 'start_iter', 'switch_iter', 'stop_iter', 'end_iter'),
    *('begin_epoch', 'start_epoch', 'switch_epoch', 'stop_epoch', 'end_epoch', 'num_last_epochs'),
)


def set_max_iters(cfg: Config, iters: int) -> Changes:
    """Train for a number of iterations, in place.

    The curves of the learning rate end with the run, and their steps stay at the same share of it.
    The warm-up keeps its length, but takes at most a tenth of the run (or what the config gives
    it, if that is more); one of less than two iterations does nothing. Hooks that end or begin at
    an iteration (``end_iter``) do so at the same share of the run. Validations, checkpoints and
    lines of the log that would come after the end come at the end.

    Args:
        cfg: Config that trains for iterations.
        iters: Iterations.

    Returns:
        What was changed.

    Raises:
        UsageError: If the config trains for epochs, or does not say for how long.
    """
    return _set_length(cfg, iters, 'max_iters')


def set_max_epochs(cfg: Config, epochs: int) -> Changes:
    """Train for a number of epochs, in place: see :func:`set_max_iters`.

    A warm-up in iterations stays as it is, since only the data says how many an epoch has.

    Args:
        cfg: Config that trains for epochs.
        epochs: Epochs.

    Returns:
        What was changed.

    Raises:
        UsageError: If the config trains for iterations, or does not say for how long.
    """
    return _set_length(cfg, epochs, 'max_epochs')


def _set_length(cfg: Config, length: int, key: str) -> Changes:
    try:
        new = whole_number(length, key, positive=True)
    except ValueError as error:
        raise UsageError(str(error)) from error
    loop = cfg.get('train_cfg') or {}
    other = 'max_epochs' if key == 'max_iters' else 'max_iters'
    if key not in loop and loop.get(other):
        raise UsageError(
            f'{key}={new} does not fit {cfg.filename or "the config"}, which trains for '
            f'train_cfg.{other}={loop[other]}: set {other}=NUMBER'
        )
    old = loop.get(key)
    if not isinstance(old, int) or old < 1:
        raise UsageError(
            f'{key}={new} cannot be set: train_cfg of {cfg.filename or "the config"} has no {key}'
        )
    changes = Changes()
    changes.set(loop, key, new, 'train_cfg')
    in_epochs = key == 'max_epochs'
    groups = list(_groups(cfg.get('param_scheduler'), 'param_scheduler'))
    meant = max([old, *(_last_end(group, in_epochs) for group in groups)])
    for group in groups:
        _stretch(group, max(old, _last_end(group, in_epochs)), new, in_epochs, changes)
    _set_intervals(cfg, meant, new, in_epochs, changes)
    return changes


def _groups(schedulers: Any, path: str) -> Iterator[dict[str, dict]]:
    """The schedulers of every optimizer, by their dotted keys."""
    if isinstance(schedulers, (list, tuple)):
        yield {f'{path}.{i}': item for i, item in enumerate(schedulers) if isinstance(item, dict)}
    elif isinstance(schedulers, dict) and 'type' not in schedulers:  # of several optimizers
        for name, inner in schedulers.items():
            yield from _groups(inner, f'{path}.{name}')
    elif isinstance(schedulers, dict):
        yield {path: schedulers}


def _last_end(group: dict[str, dict], in_epochs: bool) -> int:
    """Length of the run that schedulers are for, which a file that inherits them may have cut."""
    counted = [item for item in group.values() if bool(item.get('by_epoch', True)) == in_epochs]
    return max([item['end'] for item in counted if _is_count(item.get('end'))], default=0)


def _stretch(group: dict[str, dict], old: int, new: int, in_epochs: bool, changes: Changes) -> None:
    """Move the schedulers of one optimizer to a run of another length."""
    counted = [item for item in group.values() if bool(item.get('by_epoch', True)) == in_epochs]
    others = [item for item in group.values() if not item.get('by_epoch', True) and in_epochs]
    exact = in_epochs and all(item.get('convert_to_iter_based') for item in counted)
    before = max([item['end'] for item in counted if _warms_up(item, old / 2)], default=0)
    after = min(before, max(_LONGEST_WARM_UP, before / old) * new)
    if not exact:
        after = int(after) if after >= 2 else 0
    kept = max([item['end'] for item in others if _warms_up(item, _FOR_EVER)], default=0)

    def place(at: float) -> float:
        """Where in the new run that is which was at some place of the old one."""
        if at <= before:
            return _rounded(at * after / before if before else at, exact)
        return _rounded(after + (at - before) * (new - after) / (old - before), exact)

    def place_among_epochs(at: float) -> float:
        return at if at <= kept else round(at * new / old)

    for path, item in group.items():
        if item in counted:
            _move(item, path, place, 0.01 if exact else 1, changes)
            if before and not after and _warms_up(item, old / 2):
                _stop_warm_up(item, path, changes)
        elif item in others:
            _move(item, path, place_among_epochs, 1, changes)


def _warms_up(scheduler: dict, latest: float) -> bool:
    """Whether it raises the rate at the start and ends before some place."""
    name = component_name(scheduler.get('type'))
    end = scheduler.get('end')
    return (
        (name in _WARM_UPS or 'Warmup' in name)
        and not scheduler.get('begin')
        and isinstance(end, (int, float))
        and 0 < end < latest
    )


def _move(
    item: dict, path: str, place: Callable[[float], float], least: float, changes: Changes
) -> None:
    begin = item.get('begin') or 0
    start = place(begin)

    def length(value: float, since: float = begin) -> float:
        return max(least, place(since + value) - place(since))

    moved: dict[str, Any] = {}
    for key in ('T_max', 'total_steps', 'T_0', 'step_size'):
        if _is_count(item.get(key)):
            moved[key] = length(item[key])
    if item.get('periods'):
        sums = [sum(item['periods'][:index]) for index in range(len(item['periods']))]
        pairs = zip(item['periods'], sums, strict=True)
        moved['periods'] = [length(period, begin + since) for period, since in pairs]
    if item.get('milestones'):
        moved['milestones'] = [max(1, place(at)) for at in item['milestones']]
    if _is_count(item.get('end')):
        moved['end'] = max(place(item['end']), start + least)
    if begin:
        moved['begin'] = start
    for key in ('begin', 'end', *moved):
        if key in moved:
            changes.set(item, key, moved[key], path)


def _stop_warm_up(item: dict, path: str, changes: Changes) -> None:
    """Leave it in its place, where options may name it, and let it do nothing."""
    for key in ('start_factor', 'factor'):
        if key in item or (key == 'start_factor' and 'Linear' in component_name(item.get('type'))):
            changes.set(item, key, 1.0, path)


def _is_count(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value < _FOR_EVER


def _rounded(value: float, exact: bool) -> float:
    """A whole number; parts of epochs only where mmengine makes iterations of them."""
    whole = round(value)
    return whole if not exact or abs(value - whole) < 1e-6 else round(value, 3)


def _set_intervals(cfg: Config, old: int, new: int, in_epochs: bool, changes: Changes) -> None:
    """What happens at intervals happens at least once; what ends or begins keeps its share."""
    loop = cfg.train_cfg
    for key in ('val_interval', 'val_begin'):
        _shorten(loop, key, new, 'train_cfg', changes)
    if loop.get('dynamic_intervals'):
        moved = [(_share(at, old, new), min(each, new)) for at, each in loop.dynamic_intervals]
        changes.set(loop, 'dynamic_intervals', moved, 'train_cfg')
    hooks = cfg.get('default_hooks') or {}
    saving = hooks.get('checkpoint')
    if isinstance(saving, dict) and bool(saving.get('by_epoch', True)) == in_epochs:
        _shorten(saving, 'interval', new, 'default_hooks.checkpoint', changes)
        _shorten(saving, 'save_begin', new, 'default_hooks.checkpoint', changes)
    if isinstance(hooks.get('logger'), dict) and not in_epochs:
        _shorten(hooks['logger'], 'interval', new, 'default_hooks.logger', changes)
    for index, hook in enumerate(cfg.get('custom_hooks') or []):
        for key in _OF_HOOKS if isinstance(hook, dict) else ():
            if _is_count(hook.get(key)):
                changes.set(hook, key, _share(hook[key], old, new), f'custom_hooks.{index}')


def _shorten(item: dict, key: str, length: int, path: str, changes: Changes) -> None:
    if _is_count(item.get(key)) and item[key] > length:
        changes.set(item, key, length, path)


def _share(at: int, old: int, new: int) -> int:
    """The place in the new run at the same share, at least 1."""
    return max(1, math.ceil(at * new / old - 1e-9)) if at > 0 else at
