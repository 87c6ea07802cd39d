"""Runners of training and testing from a config, and what a call may ask of them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.visualization import Visualizer

from mmsw.component_name import component_name
from mmsw.errors import UsageError

from .checks.folders import check_writable
from .config import (
    check_pretrained,
    config_name,
    drop_pretrained,
    enable_amp,
    enable_auto_scale_lr,
    forget_handed_over,
    load_config,
    register_toolbox,
    set_pretrained,
)
from .data import check_data
from .plain_config import check_can_be_saved
from .portable_runner import PortableRunner
from .testing import prepare_test
from .trained import existing_file

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
_TORCHRUN_VARIABLES = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')

_runners = itertools.count(1)  # in this process


def build_runner(
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
) -> Runner:
    """Build the runner that trains what a config describes.

    Args:
        config: Config file, or a config. Its ``default_scope`` says which toolbox it is for.
        work_dir: Where logs and checkpoints go; default: ``work_dir`` of the config, or
            ``work_dirs/`` plus the name of the file.
        resume: ``True`` or ``'auto'`` goes on from the latest checkpoint in the work folder, if
            there is one; a path goes on from that file.
        amp: Train in mixed precision; needs a GPU.
        launcher: ``'none'`` for one process, ``'pytorch'`` under ``torchrun``, ``'slurm'`` or
            ``'mpi'``.
        cfg_options: Changes to the config, dotted key -> value.
        data_root: Folder of the data set, for all loaders and evaluators.
        pretrained: File that the backbone starts from; ``False`` to train from scratch; ``None``
            for what the config says, but for nothing if the config has ``load_from``, a file that
            the whole model starts from.
        auto_scale_lr: Scale the learning rate to the total batch size.

    Returns:
        The runner; call ``train()``.

    Raises:
        UsageError: If something asked for is impossible, or data or ``load_from`` are missing.
        mmsw.checkpoint.CheckpointError: If the file that the backbone starts from is missing, or an
            address cannot be read.
    """
    cfg, _ = _prepare(config, work_dir, launcher, cfg_options, data_root)
    if pretrained is not None:
        set_pretrained(cfg, pretrained)
    dropped = drop_pretrained(cfg) if pretrained is None and cfg.get('load_from') else None
    if amp:
        enable_amp(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    resumed = _set_resume(cfg, resume)
    check_data(cfg, [name for name in ('train_dataloader', 'val_dataloader') if cfg.get(name)])
    if resumed:
        forget_handed_over(cfg.model)
    else:
        check_pretrained(cfg)
        if cfg.get('load_from'):
            existing_file(cfg.load_from, 'load_from')
    runner = _from_cfg(cfg)
    if resume and not resumed:
        runner.logger.warning(f'nothing to resume in {cfg.work_dir}: starting from the beginning')
    if dropped:
        runner.logger.info(f'the backbone does not start from {dropped}, since load_from is set')
    _check_total_batch(runner)
    return runner


def build_test_runner(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str],
    work_dir: str | os.PathLike[str] | None = None,
    launcher: str = 'none',
    cfg_options: dict[str, Any] | None = None,
    *,
    data_root: str | os.PathLike[str] | None = None,
    tta: bool = False,
    show_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    no_truth: bool = False,
    deploy: bool = False,
) -> Runner:
    """Build the runner that tests a trained checkpoint.

    Args:
        config: Config file, or a config. ``use_tta = True`` in it is the same as ``tta=True``.
        checkpoint: File that a training run saved.
        work_dir: Where logs go; default as for training.
        launcher: As for training.
        cfg_options: Changes to the config, dotted key -> value.
        data_root: Folder of the data set, for all loaders and evaluators.
        tta: Average over the scales and flips of ``tta_pipeline``, with the config's ``tta_model``.
        show_dir: Folder for a picture of every image (those of the first process).
        out: Where predictions go: a folder of label maps (mmseg), a ``.pkl`` file (mmdet).
        no_truth: Predict for images without annotations; nothing is scored. Needs ``show_dir`` or
            ``out``.
        deploy: Fold the model when its weights are loaded, see :func:`mmsw.deploy.fold_model`;
            scores stay, up to rounding. The test refuses a model of which nothing can be folded.

    Returns:
        The runner; call ``test()``.

    Raises:
        UsageError: If something asked for is impossible, or a file is missing.
    """
    cfg, scope = _prepare(config, work_dir, launcher, cfg_options, data_root)
    if cfg.get('test_dataloader') is None:
        raise UsageError(f'{config_name(cfg)} has no test_dataloader')
    cfg.load_from, cfg.resume = existing_file(checkpoint, 'checkpoint'), False
    forget_handed_over(cfg.model)
    prepare_test(cfg, scope, tta=tta, show_dir=show_dir, out=out, no_truth=no_truth, deploy=deploy)
    check_data(cfg, ['test_dataloader'])
    runner = _from_cfg(cfg)
    runner.needs_complete_checkpoint = True
    return runner


def _check_total_batch(runner: Runner) -> None:
    """Warn once if a step takes other numbers of images than the learning rate was chosen for."""
    scaling = runner.cfg.get('auto_scale_lr') or {}
    wanted = scaling.get('base_batch_size')
    size = (runner.cfg.get('train_dataloader') or {}).get('batch_size')
    if not (wanted and size) or scaling.get('enable'):
        return
    counts = (runner.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    total = runner.world_size * size * counts
    if total == wanted:
        return
    cure = f'train_dataloader.batch_size={max(1, wanted // (runner.world_size * counts))}'
    loop = runner.cfg.get('train_cfg') or {}
    in_epochs = loop.get('by_epoch') or component_name(loop.get('type')) == 'EpochBasedTrainLoop'
    if in_epochs and wanted % (runner.world_size * size) == 0:
        # By iterations a run would see fewer images: mmengine counts them, not the steps.
        cure += f' or optim_wrapper.accumulative_counts={wanted // (runner.world_size * size)}'
    runner.logger.warning(
        f'a step takes {total} images (processes {runner.world_size}, batch_size {size}, '
        f'accumulative_counts {counts}), but the learning rate is for {wanted} '
        f'(auto_scale_lr.base_batch_size): set --cfg-options {cure}, or scale the learning rate '
        'with --auto-scale-lr'
    )


def _prepare(
    config: str | os.PathLike[str] | Config,
    work_dir: str | os.PathLike[str] | None,
    launcher: str,
    cfg_options: dict[str, Any] | None,
    data_root: str | os.PathLike[str] | None,
) -> tuple[Config, str]:
    """What training and testing have in common; returns the config and its scope."""
    cfg = load_config(config, cfg_options, data_root)
    if not cfg.get('model'):
        raise UsageError(f'{config_name(cfg)} has no model')
    check_can_be_saved(cfg, config_name(cfg))
    _check_launcher(launcher)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = os.fspath(work_dir)
    elif not cfg.get('work_dir'):
        cfg.work_dir = os.path.join('work_dirs', Path(cfg.filename or 'config').stem)
    check_writable(cfg.work_dir, '--work-dir')
    return cfg, register_toolbox(cfg)


def _from_cfg(cfg: Config) -> Runner:
    named = cfg.get('runner_type', PortableRunner)
    kind = RUNNERS.get(named) if isinstance(named, str) else named
    if kind is None:
        raise UsageError(f'runner_type={named!r} of {config_name(cfg)} is unknown')
    if cfg.get('load_from') and not issubclass(kind, PortableRunner):
        raise UsageError(
            f'runner_type={named!r} may run what the checkpoint {cfg.load_from} holds, and accepts '
            'one that does not fill the model: leave runner_type out, or derive the runner from '
            'mmsw.apis.PortableRunner'
        )
    _give_own_names(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else kind.from_cfg(cfg)


def _give_own_names(cfg: Config) -> None:
    """Give the experiment and the visualizer names that none in this process has.

    mmengine keeps one scope per experiment and second, one visualizer per name, and its hooks draw
    with the one whose name came last: a second runner would go on with what the first one left.
    """
    number = next(_runners)
    if number > 1:
        name = cfg.get('experiment_name') or Path(cfg.filename or 'run').stem
        cfg.experiment_name = f'{name}_{number}'
    visualizer = dict(cfg.get('visualizer') or {'type': 'Visualizer'})
    wanted = visualizer.get('name', 'visualizer')
    names = itertools.chain([wanted], (f'{wanted}_{number}' for number in itertools.count(2)))
    free = next(name for name in names if not Visualizer.check_instance_created(name))
    cfg.visualizer = dict(visualizer, name=free)


def _check_launcher(launcher: str) -> None:
    if launcher not in LAUNCHERS:
        raise UsageError(f'launcher must be one of {list(LAUNCHERS)}, got {launcher!r}')
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


def _latest_checkpoint(work_dir: str) -> str | None:
    if not (Path(work_dir) / 'last_checkpoint').is_file():
        return None
    latest = Path(find_latest_checkpoint(work_dir))
    if not latest.is_file():  # the work folder was moved: the pointer file holds the old path
        latest = Path(work_dir) / latest.name
    return existing_file(latest, f'latest checkpoint of {work_dir}')
