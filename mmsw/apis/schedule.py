"""Fitting the schedule of a config to a budget of iterations."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mmsw.component_name import component_name
from mmsw.errors import UsageError

from .config import config_name

# What a scheduler counts in iterations or epochs.
_COUNTS = ('begin', 'end', 'T_max', 'T_0', 'step_size', 'total_steps', 'milestones', 'periods')
# What a hook that prunes counts in iterations of the whole run; how often it acts stays.
_PRUNING = {'DynamicSparsityHook': ('end_iter',), 'GradualPruningHook': ('begin', 'end')}
_LONGEST_WARM_UP = 0.1  # share of the budget, where a warm-up in iterations precedes epochs


def fit_schedule(cfg: Config, budget: int, evaluations: int) -> None:
    """Train for a number of iterations, in place.

    Every scheduler is stretched or shrunk with the schedule, warm-up included, and so are the first
    and the last iteration of hooks that prune, in a schedule of iterations. A schedule in epochs
    becomes one in iterations; a warm-up that is given in iterations before epochs keeps its length,
    but takes at most a tenth of the budget. One
    of less than two iterations is left out. Files are no longer saved by mmengine's hook.

    Args:
        cfg: A training config.
        budget: Iterations, at least 1.
        evaluations: Evaluations in that time, evenly spaced, the last one at the end.

    Raises:
        UsageError: If the config does not say how long it trains.
    """
    old = cfg.get('train_cfg') or {}
    in_epochs = bool(old.get('by_epoch', 'max_iters' not in old))
    length = old.get('max_epochs' if in_epochs else 'max_iters')
    if not length:
        raise UsageError(
            f'train_cfg of {config_name(cfg)} has neither max_iters nor max_epochs, got {dict(old)}'
        )
    cfg.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=budget, val_interval=-(-budget // evaluations)
    )
    schedulers = cfg.get('param_scheduler') or []
    schedulers = [schedulers] if isinstance(schedulers, dict) else list(schedulers)
    fitted = [_fitted(dict(item), budget, length, in_epochs) for item in schedulers]
    cfg.param_scheduler = [item for item in fitted if not _is_stuck(item)]
    if not in_epochs:
        for hook in cfg.get('custom_hooks') or []:
            _fit_pruning(hook, budget / length)
    sampler = cfg.train_dataloader.get('sampler') or {}
    if component_name(sampler.get('type')) == 'DefaultSampler':
        # Begun anew after each pass, workers would repeat their augmentation.
        cfg.train_dataloader.sampler = dict(
            type='InfiniteSampler', shuffle=sampler.get('shuffle', True)
        )
    hooks = dict(cfg.get('default_hooks') or {})
    logger = dict(hooks.get('logger') or {'type': 'LoggerHook'})
    logger.update(interval=max(1, min(50, budget // 10)), log_metric_by_epoch=False)
    cfg.default_hooks = dict(hooks, logger=logger, checkpoint=None)
    cfg.log_processor = dict(cfg.get('log_processor') or {'type': 'LogProcessor'}, by_epoch=False)


def _fit_pruning(hook: dict[str, Any], factor: float) -> None:
    for key in _PRUNING.get(component_name(hook.get('type')), ()):
        if hook.get(key):
            hook[key] = max(1, round(hook[key] * factor))


def _is_stuck(scheduler: dict[str, Any]) -> bool:
    """Whether it is a warm-up of one iteration, which mmengine begins and never ends."""
    if 'start_factor' not in scheduler and 'factor' not in scheduler:
        return False
    return scheduler.get('end', float('inf')) - scheduler.get('begin', 0) < 2


def _fitted(scheduler: dict[str, Any], budget: int, length: int, in_epochs: bool) -> dict[str, Any]:
    by_epoch = scheduler.get('by_epoch', True)
    factor = budget / length
    if in_epochs and not by_epoch:
        end = scheduler.get('end') or 0
        factor = min(1.0, _LONGEST_WARM_UP * budget / end) if 0 < end < float('inf') else 1.0
    scheduler.pop('convert_to_iter_based', None)
    scheduler['by_epoch'] = False
    for key in _COUNTS:
        value = scheduler.get(key)
        if isinstance(value, (list, tuple)):
            scheduler[key] = [max(1, round(item * factor)) for item in value]
        elif value is not None and value != float('inf'):
            scheduler[key] = max(0 if key == 'begin' else 1, round(value * factor))
    end = scheduler.get('end')
    if end is not None and end <= scheduler.get('begin', 0):
        scheduler['end'] = scheduler.get('begin', 0) + 1
    return scheduler
