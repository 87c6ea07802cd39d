"""Options of the command line that are meant for ``own_data``."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config

from mmsw.errors import UsageError

# Options of any config that mean a key of own_data where there is one.
_MEANT = ('data_root', 'crop_size', 'max_iters', 'batch_size')
_PREFIX = 'own_data.'


def apply_options(
    cfg: Config, options: dict[str, Any], data_root: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Change ``own_data`` as options say, in place.

    Args:
        cfg: A config with an ``own_data`` dict.
        options: Dotted key -> value, as from ``--cfg-options``.
        data_root: Wins over the option of that name.

    Returns:
        The other options, for after :func:`mmsw.apis.own_data.fill_in`.

    Raises:
        UsageError: If an option does not fit.
    """
    rest = dict(options)
    own = {key: rest.pop(key) for key in options if key.startswith(_PREFIX)}
    if 'own_data' in rest:
        own = {**_flat(rest.pop('own_data')), **own}
    given = {key: rest.pop(key) for key in _MEANT if key in rest}
    if data_root is not None:
        given['data_root'] = os.fspath(data_root)
    own.update({f'{_PREFIX}{key}': value for key, value in given.items()})
    for key, value in own.items():
        _set(cfg, key, value)
    return rest


def refuse_options(cfg: Config, options: dict[str, Any]) -> None:
    """Refuse options for ``own_data`` where a config has none.

    Raises:
        UsageError: If there are such options.
    """
    meant = [key for key in options if f'{key}.'.startswith(_PREFIX)]
    if meant:
        raise UsageError(
            f'the option {meant[0]} needs a config with own_data, such as own_segmentation_sw_t or '
            f'own_mask_rcnn_sw_t; {cfg.filename or "this config"} has none'
        )


def _flat(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f'the option own_data={value!r} is no dict; set own_data.KEY=VALUE')
    return {f'{_PREFIX}{key}': item for key, item in value.items()}


def _set(cfg: Config, key: str, value: Any) -> None:
    """Set a key, also one whose place holds no dict yet."""
    own = cfg.own_data
    *path, last = key.removeprefix(_PREFIX).split('.')
    for name in path:
        if not isinstance(own.get(name), dict):
            own[name] = {}
        own = own[name]
    own[last] = value
