"""Configs of a benchmark of training: read and checked, and made into those of its runs."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.apis.config import load_config, register_toolbox
from mmsw.apis.data import iter_datasets
from mmsw.apis.schedule import fit_schedule
from mmsw.demo import make_demo_data
from mmsw.errors import UsageError

from .hook import MeasuringHook
from .runs import Run

_NEEDED = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper')


def read_config(
    path: str | os.PathLike[str],
    cfg_options: Mapping[str, Any],
    data_root: str | os.PathLike[str] | None = None,
) -> tuple[Config, str, dict[str, Any]]:
    """Read the config of a training.

    Args:
        path: Of the file.
        cfg_options: Changes to it, dotted key -> value.
        data_root: Folder of the data; ``None`` for that of the config.

    Returns:
        The config, which starts from no file, the toolbox it is for, and its first training data
        set.

    Raises:
        UsageError: If it cannot be read, or lacks what a training needs.
    """
    cfg = load_config(path, dict(cfg_options), data_root)
    toolbox = register_toolbox(cfg)
    for key in _NEEDED:
        if not cfg.get(key):
            raise UsageError(f'{path} has no {key}, which a benchmark of training needs')
    cfg.load_from, cfg.resume = None, False
    return cfg, toolbox, next(iter_datasets(cfg.train_dataloader.dataset))


def config_of_run(cfg: Config, run: Run, budget: int, evaluations: int) -> Config:
    """A copy of a config that trains a run: in its folder, by its seed.

    Args:
        cfg: What is trained.
        run: The run.
        budget: Iterations.
        evaluations: Evaluations in that time, the last one at the end.
    """
    cfg = copy.deepcopy(cfg)
    fit_schedule(cfg, budget, evaluations)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=run.seed)
    cfg.work_dir = os.fspath(run.folder)
    return cfg


def measuring(hook: type[MeasuringHook], run: Run, **settings: Any) -> dict[str, Any]:
    """Entry of a config for the hook that measures a run, named by where it is to be found."""
    kind = f'{hook.__module__}.{hook.__qualname__}'
    return dict(type=kind, digest=run.digest, begun=time.time(), **settings)


def make_missing_data(folder: Path, progress: Callable[[str], None], **settings: int) -> None:
    """Make the demonstration's data if there is no such folder.

    Raises:
        UsageError: If packages are missing for it.
    """
    if folder.exists():
        return
    progress(f'making the demo data: {folder}')
    try:
        make_demo_data(folder, **settings)
    except ImportError as error:
        raise UsageError(f'the demo data cannot be made: {error}') from error
