"""The config of a training run, with everything applied that a call asks for."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.runner import find_latest_checkpoint

from mmsw.checkpoint.trained import existing_file
from mmsw.errors import UsageError

from .checks.folders import check_writable
from .config import (
    config_name,
    drop_pretrained,
    enable_amp,
    enable_auto_scale_lr,
    forget_handed_over,
    load_config,
    register_toolbox,
    set_pretrained,
)
from .monitoring import enable_monitoring
from .plain_config import check_can_be_saved

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
_TORCHRUN_VARIABLES = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


@dataclass(frozen=True)
class TrainingPlan:
    """What a run is to do.

    Attributes:
        cfg: The config.
        notes: What its log is to say first: level and text.
    """

    cfg: Config
    notes: list[tuple[int, str]] = field(default_factory=list)


def training_config(
    config: str | os.PathLike[str] | Config,
    work_dir: str | os.PathLike[str] | None = None,
    resume: bool | str | os.PathLike[str] = False,
    amp: bool = False,
    launcher: str = 'none',
    cfg_options: dict[str, Any] | None = None,
    *,
    data_root: str | os.PathLike[str] | None = None,
    pretrained: str | os.PathLike[str] | bool | None = None,
    auto_scale_lr: bool = False,
    tensorboard: bool = False,
    wandb: bool | str = False,
    only_shown: bool = False,
) -> TrainingPlan:
    """Apply what a call of :func:`mmsw.apis.build_runner` asks for to its config.

    Args:
        config: As there, and so are the arguments up to ``wandb``.
        only_shown: The config is only shown, so it need not be able to run here: toolbox, GPU,
            logging packages and launcher may be absent.

    Returns:
        The config, and what the log of the run is to say first.

    Raises:
        UsageError: If something asked for is impossible.
    """
    cfg, _ = prepare(config, work_dir, launcher, cfg_options, data_root, only_shown)
    notes = []
    if pretrained is not None:
        set_pretrained(cfg, pretrained)
    dropped = drop_pretrained(cfg) if pretrained is None and cfg.get('load_from') else None
    if amp:
        enable_amp(cfg, needs_device=not only_shown)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    enable_monitoring(cfg, tensorboard, wandb, must_be_there=not only_shown)
    asked = resume or cfg.get('resume')
    if _set_resume(cfg, resume):
        forget_handed_over(cfg.model)
    elif asked:
        notes.append((logging.WARNING, _nothing_to_resume(cfg.work_dir)))
    if dropped:
        text = f'the backbone does not start from {dropped}, since load_from is set'
        notes.append((logging.INFO, text))
    return TrainingPlan(cfg, notes)


def prepare(
    config: str | os.PathLike[str] | Config,
    work_dir: str | os.PathLike[str] | None,
    launcher: str,
    cfg_options: dict[str, Any] | None,
    data_root: str | os.PathLike[str] | None,
    only_shown: bool = False,
) -> tuple[Config, str]:
    """What training and testing have in common; returns the config and its scope."""
    cfg = load_config(config, cfg_options, data_root)
    if not cfg.get('model'):
        raise UsageError(f'{config_name(cfg)} has no model')
    check_can_be_saved(cfg, config_name(cfg))
    if launcher not in LAUNCHERS:
        raise UsageError(f'launcher must be one of {list(LAUNCHERS)}, got {launcher!r}')
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = os.fspath(work_dir)
    elif not cfg.get('work_dir'):
        cfg.work_dir = os.path.join('work_dirs', Path(cfg.filename or 'config').stem)
    if only_shown:
        return cfg, cfg.get('default_scope') or 'mmengine'
    _check_launcher(launcher)
    check_writable(cfg.work_dir, '--work-dir')
    return cfg, register_toolbox(cfg)


def _check_launcher(launcher: str) -> None:
    if launcher == 'none' or is_distributed():
        return
    if launcher != 'pytorch':
        if get_device() == 'cpu':
            raise UsageError(f'launcher {launcher!r} needs GPUs; on CPUs use torchrun and pytorch')
        return
    unset = [name for name in _TORCHRUN_VARIABLES if name not in os.environ]
    if unset:
        raise UsageError(
            f'launcher {launcher!r} needs {", ".join(unset)} in the environment: start through '
            'tools/dist_train.sh, tools/dist_test.sh or torchrun'
        )
    local_size = int(os.environ.get('LOCAL_WORLD_SIZE', int(os.environ['LOCAL_RANK']) + 1))
    if torch.cuda.is_available() and local_size > torch.cuda.device_count():
        raise UsageError(
            f'{local_size} processes were started here, but only {torch.cuda.device_count()} GPUs '
            'are visible: start as many as there are GPUs'
        )


def _set_resume(cfg: Config, resume: bool | str | os.PathLike[str]) -> bool:
    """Write what to resume from into the config; returns whether there is something."""
    if not resume and cfg.get('resume'):
        resume = cfg.get('load_from') or True
    if not resume:
        return False
    if resume is True or os.fspath(resume) == 'auto':
        latest = _latest_checkpoint(cfg.work_dir)
        cfg.resume = latest is not None
        if latest is not None:
            cfg.load_from = latest
    else:
        cfg.load_from, cfg.resume = existing_file(resume, 'checkpoint to resume from'), True
    return cfg.resume


def _nothing_to_resume(work_dir: str) -> str:
    there = sorted(Path(work_dir).glob('*.pth')) if Path(work_dir).is_dir() else []
    if there:
        why = f' (it has no file last_checkpoint; name one with --resume, e.g. {there[-1]})'
    elif Path(work_dir).is_dir():
        why = ' (it holds no checkpoint)'
    else:
        why = ' (there is no such folder; --work-dir must be that of the run to go on with)'
    return f'nothing to resume in {work_dir}{why}: starting from the beginning'


def _latest_checkpoint(work_dir: str) -> str | None:
    if not (Path(work_dir) / 'last_checkpoint').is_file():
        return None
    latest = Path(find_latest_checkpoint(work_dir))
    if not latest.is_file():  # the work folder was moved: the pointer file holds the old path
        latest = Path(work_dir) / latest.name
    return existing_file(latest, f'latest checkpoint of {work_dir}')
