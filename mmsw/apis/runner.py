"""mmengine's runner from a config: one process or many, with or without a GPU."""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, is_distributed
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.hooks import EMAHook
from mmengine.model import BaseTTAModel, is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import (
    BaseLoop,
    Runner,
    find_latest_checkpoint,
    load_state_dict,
)
from mmengine.visualization import Visualizer
from torch import nn

from mmsw.checkpoint import (
    CheckpointError,
    fetched_once,
    only_data_is_read,
    read_checkpoint,
)
from mmsw.engine.model_wrapper import unwrapped
from mmsw.errors import MmswError
from mmsw.sparsity import attach_saved_masks

from .config import (
    check_pretrained,
    drop_pretrained,
    enable_amp,
    enable_auto_scale_lr,
    enable_drawing,
    enable_output,
    enable_tta,
    load_config,
    register_toolbox,
    set_pretrained,
)
from .data import check_data
from .dataset_checks import check_dataset, explained_errors
from .errors import UsageError
from .trained import (
    REVISE_KEYS,
    check_whole,
    existing_file,
    is_folded,
    state_dict_of,
    take_form,
)

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
_TORCHRUN_VARIABLES = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')

_runners = itertools.count(1)  # in this process


@RUNNERS.register_module()
class PortableRunner(Runner):
    """mmengine's runner, which also

    - runs several processes without a GPU: they talk over gloo, and SyncBN, which has no CPU
      kernel, becomes BN (in a single process mmengine does that itself);
    - refuses a checkpoint that lacks parameters of the model when it resumes or tests, where
      mmengine would go on with random ones;
    - runs nothing that a checkpoint holds: neither where it loads one itself, nor where a part of
      the model does;
    - does not ask for pretrained weights when it resumes;
    - stops in all processes when a checkpoint cannot be saved, where mmengine would stop in the
      first one and let the others wait for it;
    - refuses data sets without an image or an annotation before any training, where mmengine would
      train on nothing or wait for ever, and says what is wrong with annotation files.
    """

    needs_whole_checkpoint: bool = False  # when loading without resuming

    def setup_env(self, env_cfg: dict) -> None:
        """As mmengine's; without a GPU the process group is a gloo one whatever the config says."""
        if self.distributed and not is_distributed() and get_device() == 'cpu':
            seconds = env_cfg.get('dist_cfg', {}).get('timeout', 1800)
            torch.distributed.init_process_group(
                'gloo', timeout=datetime.timedelta(seconds=seconds)
            )
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As mmengine's, which cannot wrap a model on the CPU."""
        if self.distributed and get_device() == 'cpu' and not is_model_wrapper(model):
            self.logger.info(
                f'no GPU: {self.world_size} processes on the CPU over gloo, and SyncBN layers '
                'become BN layers, each process with the statistics of its own images'
            )
            model = revert_sync_batchnorm(model)
            self.cfg['sync_bn'] = None
            model_wrapper_cfg = {
                'type': 'MMDistributedDataParallel',
                'broadcast_buffers': False,
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}),
                'device_ids': None,
            }
        return super().wrap_model(model_wrapper_cfg, model)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As mmengine's; refuses data that nothing can be learned from."""
        with explained_errors(self._train_dataloader, 'train_dataloader'):
            loop = super().build_train_loop(loop)
        check_dataset(loop.dataloader.dataset, 'train_dataloader')
        return loop

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As mmengine's; refuses data that nothing can be measured on."""
        with explained_errors(self._val_dataloader, 'val_dataloader', self._val_evaluator):
            loop = super().build_val_loop(loop)
        check_dataset(loop.dataloader.dataset, 'val_dataloader', _compares(loop.evaluator))
        return loop

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As mmengine's; refuses data that nothing can be measured on."""
        with explained_errors(self._test_dataloader, 'test_dataloader', self._test_evaluator):
            loop = super().build_test_loop(loop)
        check_dataset(loop.dataloader.dataset, 'test_dataloader', _compares(loop.evaluator))
        return loop

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """As mmengine's; files that its parts read are read as data alone."""
        with only_data_is_read():
            return super().build_model(model)

    def _init_model_weights(self) -> None:
        if self._resume and self._load_from is not None:
            return  # every parameter comes from the checkpoint
        with only_data_is_read(), fetched_once():
            super()._init_model_weights()

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list[tuple[str, str]] = REVISE_KEYS,
    ) -> dict:
        """Load weights into the model.

        Args:
            filename: Local file or address.
            map_location: Without effect: files are read onto the CPU, and copied from there.
            strict: Also refuse buffers that do not match.
            revise_keys: (pattern, replacement) for the keys of the file.

        Returns:
            What the file holds.

        Raises:
            CheckpointError: If the file is damaged or asks for more than data; or if the run trains
                and the file holds folded layers; or if the run resumes and the file is not of a
                training; or if the run resumes or tests and the file lacks parameters of the model
                or has them in another shape.
        """
        with fetched_once():
            checkpoint = read_checkpoint(filename)
        _check_meta(checkpoint, filename, self._resume)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model = unwrapped(self.model)
        state = state_dict_of(checkpoint, revise_keys)
        if is_folded(state) and (self._resume or isinstance(self._train_loop, BaseLoop)):
            raise CheckpointError(
                f'{filename} was saved after switch_to_deploy, and folded layers cannot be '
                'trained: name the file that was saved before'
            )
        part = model.module if isinstance(model, BaseTTAModel) else model
        take_form(part, state)
        if self._resume or self.needs_whole_checkpoint:
            check_whole(state, part, filename)
        load_state_dict(model, state, strict, logger=self.logger)
        for hook in self.hooks:
            if isinstance(hook, EMAHook) and hasattr(hook, 'ema_model'):
                _mask_average(hook.ema_model.module, state)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """As mmengine's, in which the main process alone works; its error is raised in all."""
        error = None
        try:
            super().save_checkpoint(*args, **kwargs)
        except Exception as problem:
            error = problem
        verdict = [_portable(error)]
        broadcast_object_list(verdict)
        if error is not None:
            raise error
        if verdict[0] is not None:
            raise verdict[0]


def _portable(error: Exception | None) -> Exception | None:
    """An error that can be sent to other processes."""
    if error is None or isinstance(error, MmswError):
        return error and type(error)(str(error))
    return RuntimeError(f'the main process could not save ({type(error).__name__}: {error})')


def _check_meta(checkpoint: Any, filename: str, resumes: bool) -> None:
    """Refuse to go on from what no training run saved, and drop what mmengine would run.

    mmengine looks for the number of GPUs in the config that old files hold, and executes it.

    Raises:
        CheckpointError: If no run can go on from it.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    meta.pop('config', None)
    found = {*meta, *checkpoint} if meta else {}
    missing = [key for key in ('epoch', 'iter', 'message_hub') if key not in found]
    if resumes and missing:
        raise CheckpointError(
            f'{filename} holds no training that could go on ({", ".join(missing)} missing): start '
            'a new one from its weights, with load_from=PATH and without --resume'
        )


def _mask_average(average: nn.Module, state: dict[str, Any]) -> None:
    """Give an averaged model the masks that the model got from a checkpoint."""
    for name in attach_saved_masks(average, state):
        average.get_submodule(name).set_mask(state[f'{name}.mask'])


def _compares(evaluator: Evaluator) -> bool:
    """Whether predictions are compared with truth, and not only written down."""
    return any(
        not (getattr(metric, 'format_only', False) or isinstance(metric, DumpResults))
        for metric in evaluator.metrics
    )


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
        UsageError: If something asked for is impossible, or data are missing.
        mmsw.checkpoint.CheckpointError: If the file to start from is missing.
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
    if not resumed:
        check_pretrained(cfg)
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

    Returns:
        The runner; call ``test()``.

    Raises:
        UsageError: If something asked for is impossible, or a file is missing.
    """
    cfg, scope = _prepare(config, work_dir, launcher, cfg_options, data_root)
    if cfg.get('test_dataloader') is None:
        raise UsageError(f'{cfg.filename or "the config"} has no test_dataloader')
    cfg.load_from, cfg.resume = existing_file(checkpoint, 'checkpoint'), False
    if tta or cfg.get('use_tta', False):
        enable_tta(cfg)
    if show_dir is not None:
        enable_drawing(cfg, scope, show_dir)
    if out is not None:
        enable_output(cfg, scope, out)
    check_data(cfg, ['test_dataloader'])
    runner = _from_cfg(cfg)
    runner.needs_whole_checkpoint = True
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
    fitting = max(1, wanted // (runner.world_size * counts))
    runner.logger.warning(
        f'a step takes {total} images (processes {runner.world_size}, batch_size {size}, '
        f'accumulative_counts {counts}), but the learning rate is for {wanted} '
        '(auto_scale_lr.base_batch_size): set --cfg-options '
        f'train_dataloader.batch_size={fitting}, or scale the learning rate with --auto-scale-lr'
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
    _check_launcher(launcher)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = os.fspath(work_dir)
    elif not cfg.get('work_dir'):
        cfg.work_dir = os.path.join('work_dirs', Path(cfg.filename or 'config').stem)
    return cfg, register_toolbox(cfg)


def _from_cfg(cfg: Config) -> Runner:
    named = cfg.get('runner_type', PortableRunner)
    kind = RUNNERS.get(named) if isinstance(named, str) else named
    if kind is None:
        raise UsageError(f'runner_type={named!r} of {cfg.filename or "the config"} is unknown')
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
