"""Runners of training and testing from a config, and what a call may ask of them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mmsw.checkpoint.trained import existing_file
from mmsw.errors import CheckpointError, UsageError

from .checks.total_batch import total_batch_warning
from .config import check_pretrained, config_name, forget_handed_over
from .data import check_data
from .monitoring import enable_monitoring, start_explained
from .portable_runner import PortableRunner
from .run_config import prepare, training_config
from .testing import prepare_test

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
    tensorboard: bool = False,
    wandb: bool | str = False,
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
        tensorboard: Also log to TensorBoard, see :mod:`mmsw.apis.monitoring`.
        wandb: Also log to Weights & Biases; a text is the name of the project.

    Returns:
        The runner; call ``train()``.

    Raises:
        UsageError: If something asked for is impossible, or data or ``load_from`` are missing.
        mmsw.checkpoint.CheckpointError: If the file that the backbone starts from is missing, or an
            address cannot be read.
    """
    plan = training_config(
        config,
        work_dir=work_dir,
        resume=resume,
        amp=amp,
        launcher=launcher,
        cfg_options=cfg_options,
        data_root=data_root,
        pretrained=pretrained,
        auto_scale_lr=auto_scale_lr,
        tensorboard=tensorboard,
        wandb=wandb,
    )
    cfg = plan.cfg
    if pretrained and '://' not in os.fspath(pretrained) and not cfg.get('resume'):
        existing_file(pretrained, 'pretrained file', CheckpointError)
    check_data(cfg, [name for name in ('train_dataloader', 'val_dataloader') if cfg.get(name)])
    if not cfg.get('resume'):
        check_pretrained(cfg)
        if cfg.get('load_from'):
            existing_file(cfg.load_from, 'load_from')
    runner = _from_cfg(cfg)
    for level, text in plan.notes:
        runner.logger.log(level, text)
    warning = total_batch_warning(cfg, runner.world_size)
    if warning:
        runner.logger.warning(warning)
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
    tensorboard: bool = False,
    wandb: bool | str = False,
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
        tensorboard: Also log scores and some pictures to TensorBoard.
        wandb: The same for Weights & Biases; a text is the name of the project.

    Returns:
        The runner; call ``test()``.

    Raises:
        UsageError: If something asked for is impossible, or a file is missing.
    """
    cfg, scope = prepare(config, work_dir, launcher, cfg_options, data_root)
    enable_monitoring(cfg, tensorboard, wandb)
    if cfg.get('test_dataloader') is None:
        raise UsageError(f'{config_name(cfg)} has no test_dataloader')
    cfg.load_from, cfg.resume = existing_file(checkpoint, 'checkpoint'), False
    forget_handed_over(cfg.model)
    prepare_test(cfg, scope, tta=tta, show_dir=show_dir, out=out, no_truth=no_truth, deploy=deploy)
    check_data(cfg, ['test_dataloader'])
    runner = _from_cfg(cfg)
    runner.needs_complete_checkpoint = True
    return runner


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
    with start_explained():
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
