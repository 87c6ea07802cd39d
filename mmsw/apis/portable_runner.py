"""mmengine's runner with or without a GPU, safe in what it reads and clear in what it refuses."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, is_distributed
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, LogProcessor, Runner, load_state_dict
from torch import nn
from torch.utils.data import DataLoader

from mmsw.checkpoint import (
    add_record,
    check_masks_placed,
    fetched_once,
    only_data_is_read,
    read_checkpoint,
    warn_of_bare_zeros,
)
from mmsw.checkpoint.folded import refuse_folded, refuse_folded_layers
from mmsw.checkpoint.pruned import bare_zeros_are_kept
from mmsw.checkpoint.trained import (
    REVISE_KEYS,
    check_complete,
    check_fills,
    state_dict_of,
    take_form,
)
from mmsw.deploy import take_folded_form
from mmsw.engine.hooks import MemoryHook, RunEndHook
from mmsw.engine.hooks.run_end_hook import with_time_of_end
from mmsw.engine.loaded_zeros import keep_loaded_zeros, settle_masks
from mmsw.engine.model_wrapper import unwrapped
from mmsw.engine.runner_parts import keeps_bare_zeros
from mmsw.errors import CheckpointError, MmswError, UsageError
from mmsw.registration import register

from .checks.batch_norm import BatchNormCheckHook
from .checks.before_run import check_before_run
from .checks.datasets import explained_errors
from .checks.label_maps import tell_classes
from .checks.resuming import changes_on_resume
from .checks.schedule import schedule_problems
from .checks.total_batch import accumulated
from .checks.tracing import leave_shift_wise_untraced
from .memory_shortage import memory_shortage_explained
from .model_building import refusals_explained
from .pretrained_init import zeros_are_kept
from .valid_loaders import with_valid_loaders

# What mmengine calls when the model begins to see the images of a loader.
_LOADERS = {
    'before_train': 'train_dataloader',
    'before_val': 'val_dataloader',
    'after_val': 'train_dataloader',
    'before_test': 'test_dataloader',
}
# Settings of a data loader that torch refuses where the main process loads the data.
_FOR_WORKERS = {'persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context'}


@register(RUNNERS)
class PortableRunner(Runner):
    """mmengine's runner, which also

    - runs several processes without a GPU: they talk over gloo, and SyncBN, which has no CPU
      kernel, becomes BN (in a single process mmengine does that itself);
    - refuses a checkpoint that lacks parameters of the model when it resumes or tests, where
      mmengine would go on with random ones;
    - runs nothing that a checkpoint holds: neither where it loads one itself, nor where a part of
      the model does;
    - does not ask for pretrained weights when it resumes;
    - writes into every checkpoint what its network is, see :mod:`mmsw.checkpoint.format`;
    - stops in all processes when a checkpoint cannot be saved, where mmengine would stop in the
      first one and let the others wait for it;
    - looks at data sets, heads and some label maps before any training, see
      :mod:`mmsw.apis.checks`, where mmengine would train on nothing, wait for ever or learn the
      wrong thing, and says what is wrong with annotation files;
    - names a file that cannot be read, see :mod:`mmsw.apis.valid_loaders`;
    - says when a training ends, how much memory an image takes, what is another than in the run
      that it resumes, and which options need less memory where that runs out.
    """

    needs_complete_checkpoint: bool = False  # when loading without resuming
    checks_checkpoints: bool = True  # so that hooks need not
    loader_at_work: str = 'train_dataloader'  # whose images the model sees at present

    @property
    def epoch(self) -> int:
        """As mmengine's, which builds the training loop where a test asks for the epoch."""
        return self._train_loop.epoch if isinstance(self._train_loop, BaseLoop) else 0

    @property
    def iter(self) -> int:
        """As mmengine's, which builds the training loop where a test asks for the iteration."""
        return self._train_loop.iter if isinstance(self._train_loop, BaseLoop) else 0

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

    def build_dataloader(
        self, dataloader: DataLoader | dict, *args: Any, **kwargs: Any
    ) -> DataLoader:
        """As mmengine's; with validating loaders, and nothing for workers where there are none.

        Loaders learn the classes here: a training by iterations starts its workers right after.
        """
        dataloader = with_valid_loaders(dataloader, self.cfg)
        if isinstance(dataloader, dict) and not dataloader.get('num_workers'):
            kept = dataloader.keys() - _FOR_WORKERS
            dataloader = {key: value for key, value in dataloader.items() if key in kept}
        loader = super().build_dataloader(dataloader, *args, **kwargs)
        tell_classes(loader.dataset, unwrapped(self.model))
        return loader

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As mmengine's; refuses folded networks, and data that nothing can be learned from."""
        refuse_folded_layers(unwrapped(self.model))
        leave_shift_wise_untraced(self.cfg, unwrapped(self.model), self.logger)
        with explained_errors(self._train_dataloader, 'train_dataloader'):
            loop = super().build_train_loop(loop)
        check_before_run(self, loop, 'train_dataloader')
        return loop

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As mmengine's; refuses data that nothing can be measured on."""
        with explained_errors(self._val_dataloader, 'val_dataloader', self._val_evaluator):
            loop = super().build_val_loop(loop)
        check_before_run(self, loop, 'val_dataloader')
        return loop

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As mmengine's; refuses data that nothing can be measured on."""
        with explained_errors(self._test_dataloader, 'test_dataloader', self._test_evaluator):
            loop = super().build_test_loop(loop)
        check_before_run(self, loop, 'test_dataloader')
        return loop

    def register_hooks(self, *args: Any, **kwargs: Any) -> None:
        """As mmengine's, and those that every run has."""
        super().register_hooks(*args, **kwargs)
        for hook in (BatchNormCheckHook(), MemoryHook(), RunEndHook()):
            self.register_hook(hook)

    def build_log_processor(self, log_processor: Any) -> LogProcessor:
        """As mmengine's; its lines also say when a training ends."""
        return with_time_of_end(super().build_log_processor(log_processor))

    def scale_lr(self, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
        """As mmengine's, which knows nothing of accumulated gradients."""
        counts = accumulated(self.cfg)
        if counts > 1 and auto_scale_lr and auto_scale_lr.get('base_batch_size'):
            self.logger.info(f'{counts} iterations make one step: the images of all of them count')
            per_iteration = auto_scale_lr['base_batch_size'] / counts
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': per_iteration}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def train(self) -> nn.Module:
        """As mmengine's; says in one line what to do where the memory runs out."""
        with memory_shortage_explained(self):
            return super().train()

    def val(self) -> dict:
        """As mmengine's; says in one line what to do where the memory runs out."""
        with memory_shortage_explained(self):
            return super().val()

    def test(self) -> dict:
        """As mmengine's; says in one line what to do where the memory runs out."""
        with memory_shortage_explained(self):
            return super().test()

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """As mmengine's; warns of a learning rate that does not go with the length of the run."""
        try:
            built = super().build_param_scheduler(scheduler)
        except ValueError as error:  # for instance an end before the begin
            raise UsageError(f'param_scheduler of the config cannot be used: {error}') from error
        rate = ((self.cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
        for problem in schedule_problems(scheduler, self._train_loop, rate):
            self.logger.warning(problem)
        return built

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """As mmengine's; files that its parts read are read as data alone.

        What a constructor refuses is said in one line.
        """
        with only_data_is_read(), refusals_explained(self.cfg):
            return super().build_model(model)

    def _init_model_weights(self) -> None:
        if self._resume and self._load_from is not None:
            return  # every parameter comes from the checkpoint
        kept = bare_zeros_are_kept(keeps_bare_zeros(self))
        with only_data_is_read(), fetched_once(), zeros_are_kept(), kept:
            super()._init_model_weights()
        settle_masks(self)

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
                and the file holds folded layers, or a mask that no layer can take; or if the file
                holds shift patterns of other sizes; or if the run resumes and the file is not of a
                training; or if the run resumes or tests and the file lacks parameters of the model
                or has them in another shape.
        """
        with fetched_once():
            checkpoint = read_checkpoint(filename)
        _check_meta(checkpoint, filename, self._resume)
        if self._resume:
            for change in changes_on_resume(checkpoint, self):
                self.logger.warning(change)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        keep_loaded_zeros(self, checkpoint)  # also where no hook of the config does
        model = unwrapped(self.model)
        state = state_dict_of(checkpoint, revise_keys)
        trains = self._resume or isinstance(self._train_loop, BaseLoop)
        if trains:
            refuse_folded(state, model, filename)
            if not keeps_bare_zeros(self):
                warn_of_bare_zeros(state, filename)
        take_form(model, state, filename)
        if not trains:
            take_folded_form(model, state)
        check_fills(state, model, filename)
        check_masks_placed(state, model, filename, trains)
        if self._resume or self.needs_complete_checkpoint:
            check_complete(state, model, filename)
        load_state_dict(model, state, strict, logger=self.logger)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def resume(self, *args: Any, **kwargs: Any) -> None:
        """As mmengine's; the optimizers forget what the masks of the file prune."""
        super().resume(*args, **kwargs)
        settle_masks(self)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """As mmengine's; a checkpoint gets its record before the hooks see it."""
        if fn_name in _LOADERS:
            self.loader_at_work = _LOADERS[fn_name]
        if fn_name == 'before_save_checkpoint':
            add_record(kwargs['checkpoint'], unwrapped(self.model))
        super().call_hook(fn_name, **kwargs)

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
        CheckpointError: If it is no dict, or the run resumes and no training can go on from it.
    """
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{filename} holds a {type(checkpoint).__name__}; a dict of tensors, bare or under '
            'state_dict, was expected'
        )
    for name in ('state_dict', 'ema_state_dict'):
        state = checkpoint.get(name, {})
        if not (isinstance(state, Mapping) and all(isinstance(key, str) for key in state)):
            raise CheckpointError(
                f'{filename} is damaged: its {name} is no dict of tensors by name '
                f'({type(state).__name__})'
            )
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    meta.pop('config', None)
    found = {*meta, *checkpoint} if meta else {}
    missing = [key for key in ('epoch', 'iter', 'message_hub') if key not in found]
    if resumes and missing:
        raise CheckpointError(
            f'{filename} holds no training that could go on ({", ".join(missing)} missing): start '
            'a new one from its weights, with load_from=PATH and without --resume'
        )
