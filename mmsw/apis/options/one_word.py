"""The options of one word: ``crop_size=640``, ``max_iters=20000``, ``batch_size=8``."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mmsw.errors import UsageError
from mmsw.whole_number import whole_number

from .changes import Changes
from .crop_size import set_crop_size
from .run_length import set_max_epochs, set_max_iters

_LENGTHS = {'max_iters': set_max_iters, 'max_epochs': set_max_epochs}
_LOOP = ('train_cfg', 'train_cfg.type', 'train_cfg.by_epoch', 'train_cfg._delete_')


def take_one_word_options(cfg: Config, options: dict[str, Any]) -> None:
    """Apply options to all places that they mean, and take them out.

    These are ``crop_size``, ``batch_size``, ``max_iters``, ``max_epochs``, and
    ``train_cfg.max_iters`` and ``train_cfg.max_epochs``, which the schedule follows. What else the
    options set is set afterwards, so it wins.

    Args:
        cfg: Config, which is changed.
        options: Dotted key -> value, from which those are taken.

    Raises:
        UsageError: If one of them does not apply to the config.
    """
    for key in _LENGTHS:
        _set_length(cfg, options, key)
    if 'crop_size' in options:
        size = options.pop('crop_size')
        set_crop_size(cfg, size).say(f'crop_size={size}', options)
    if 'batch_size' in options:
        _set_batch_size(cfg, options.pop('batch_size'))


def _set_length(cfg: Config, options: dict[str, Any], key: str) -> None:
    dotted = f'train_cfg.{key}'
    given = {name: options[name] for name in (key, dotted) if name in options}
    if not given:
        return
    if len({str(value) for value in given.values()}) > 1:
        raise UsageError(
            f'{key}={given[key]} and {dotted}={given[dotted]} say two lengths of the run: leave '
            'one out'
        )
    value = next(iter(given.values()))
    if any(name in options for name in _LOOP):  # another loop, which is merged as it is given
        if key in given:
            raise UsageError(
                f'{key}={value} does not go with another train_cfg among the options: set '
                f'{dotted}={value}, and what belongs to it'
            )
        return
    if key not in given and not (cfg.get('train_cfg') or {}).get(key):
        return  # it fails as any key that does not fit, or it is for a loop of somebody else
    for name in given:
        del options[name]
    changes = _LENGTHS[key](cfg, value)
    changes.say(f'{next(iter(given))}={value}', options)


def _set_batch_size(cfg: Config, size: Any) -> None:
    try:
        size = whole_number(size, 'batch_size', positive=True)
    except ValueError as error:
        raise UsageError(str(error)) from error
    loader = cfg.get('train_dataloader')
    if not isinstance(loader, dict):
        raise UsageError(f'batch_size={size} cannot be set: the config has no train_dataloader')
    for key in ('sampler', 'batch_sampler'):
        if (loader.get(key) or {}).get('batch_size'):
            raise UsageError(
                f'batch_size={size} cannot be set: train_dataloader.{key}.batch_size decides as '
                f'well. Set both with --cfg-options train_dataloader.batch_size={size} '
                f'train_dataloader.{key}.batch_size=...'
            )
    changes = Changes()
    changes.set(loader, 'batch_size', size, 'train_dataloader')
    changes.say(f'batch_size={size}')
