"""Whether anything reads what ``--cfg-options`` sets."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmsw.component_name import component_name
from mmsw.wording import listed

# Keys at the top of a config that a runner, the toolboxes or the tools read.
_READ = frozenset(
    [
        *('model', 'data_preprocessor', 'pretrained', 'load_from', 'resume'),
        *('train_dataloader', 'val_dataloader', 'test_dataloader', 'data_root', 'test_pipeline'),
        *('train_cfg', 'val_cfg', 'test_cfg', 'val_evaluator', 'test_evaluator'),
        *('optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'default_hooks', 'custom_hooks'),
        *('work_dir', 'experiment_name', 'log_processor', 'log_level', 'visualizer'),
        *('default_scope', 'custom_imports', 'env_cfg', 'launcher', 'randomness'),
        *('runner_type', 'runner', 'model_wrapper_cfg', 'strategy', 'sync_bn', 'compile'),
        *('find_unused_parameters', 'activation_checkpointing', 'efficient_conv_bn_eval'),
        *('init_weights_for_test_or_val', 'tta_model', 'tta_pipeline', 'use_tta', 'stock_loaders'),
    ]
)
_RUNNERS = ('', 'Runner', 'PortableRunner')  # known to read nothing else
_UNKNOWN_KEYWORD = re.compile(r"got an unexpected keyword argument '(\w+)'")


def warn_of_unread(cfg: Config, options: Iterable[str]) -> None:
    """Warn of options at the top of a config that nothing reads.

    The variables of a config file are such: when the file has been read, their values stand where
    they were used, and a change of the variable changes nothing any more.

    Args:
        cfg: The config before the options are applied.
        options: Their dotted keys.
    """
    if component_name(cfg.get('runner_type')) not in _RUNNERS:
        return  # it may read anything
    read = _READ
    if 'data_preprocessor' in (cfg.get('model') or {}):
        read = read - {'data_preprocessor'}  # it stands in for that of the model
    for option in options:
        top = option.partition('.')[0]
        if top in read:
            continue
        if top in cfg:
            why = 'it is a variable, whose value was used when the file was read'
        else:
            why = 'nothing reads such a key'
        meant = sorted(_ending_in(option, {key: cfg[key] for key in cfg if key in _READ}))
        if top not in cfg:
            meant = meant or difflib.get_close_matches(top, _READ, 1)
        cure = f'. Did you mean {listed(meant)}?' if meant else ''
        print_log(
            f'the config option {option} has no effect: {why}{cure}', 'current', logging.WARNING
        )


def _ending_in(option: str, value: Any, path: str = '') -> Iterator[str]:
    """Dotted keys in a part of a config that end in those of the option."""
    if path.endswith(f'.{option}'):
        yield path
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, item in items:
        yield from _ending_in(option, item, f'{path}.{key}' if path else str(key))


def misspelt_option(error: BaseException | None, options: Iterable[str]) -> str | None:
    """What to say of an error that a component raised since it does not know an option's last key.

    Args:
        error: The error of the component; ``None`` has no cause that is known.
        options: Dotted keys.

    Returns:
        One sentence, or ``None`` if the error has another cause.
    """
    found = _UNKNOWN_KEYWORD.search(str(error)) if isinstance(error, TypeError) else None
    for option in options:
        if found and option.rpartition('.')[2] == found[1]:
            return f'the config option {option} does not fit what it is for: {error}'
    return None
