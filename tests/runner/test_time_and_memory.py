"""When a training ends, how much memory it takes, and what is said where the memory runs out."""

from __future__ import annotations

import datetime
import re
import types
from pathlib import Path

import pytest
import torch
from config_helpers import DETECTOR, MINI
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from tiny_run import tiny_config

from mmsw.apis import build_runner, load_config
from mmsw.apis.cli import run_reporting_errors
from mmsw.apis.memory_shortage import advice, shortage
from mmsw.engine.hooks.memory_hook import memory_line
from mmsw.engine.hooks.run_end_hook import RunEndHook, time_of_end, validations_left
from mmsw.errors import MemoryShortageError

GPU_ERROR = torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')
CPU_ERROR = "[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"


def test_the_log_says_once_what_an_image_takes_and_always_when_the_run_ends(
    tmp_path: Path, messages: list
) -> None:
    cfg = tiny_config(tmp_path, 5)
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.timer = dict(type='IterTimerHook')
    build_runner(cfg).train()
    texts = [text for _, text in messages]
    lines = [text for text in texts if 'eta: ' in text]
    assert len(lines) == 5
    assert all(
        re.search(r'eta: 0:00:\d\d \(ends [\d :-]*\d\d:\d\d\)  time', line) for line in lines
    )
    if Path('/proc/self/clear_refs').exists() or torch.cuda.is_available():
        assert sum('each image of a batch (batch_size=2)' in text for text in texts) == 1


def test_memory_in_words() -> None:
    line = memory_line('GPU memory', 2**30, 3 * 2**30, 4)
    assert line == (
        'GPU memory: 3.00 GiB at most in the first iterations; 1.00 GiB stay in use, and each '
        'image of a batch (batch_size=4) takes about 512 MiB on top'
    )


def test_the_date_is_said_where_it_is_another() -> None:
    now = datetime.datetime(2026, 11, 26, 17, 3)
    assert time_of_end(3600, now) == '18:03'
    assert time_of_end(36000, now) == '2026-11-27 03:03'


@pytest.mark.parametrize(
    ('kind', 'settings', 'left'),
    [
        (IterBasedTrainLoop, dict(iter=3, max_iters=10, val_interval=4, val_begin=1), 3),
        (IterBasedTrainLoop, dict(iter=4, max_iters=10, val_interval=4, val_begin=1), 2),
        (IterBasedTrainLoop, dict(iter=0, max_iters=8, val_interval=4, val_begin=5), 1),
        (EpochBasedTrainLoop, dict(epoch=0, max_epochs=3, val_interval=1, val_begin=1), 3),
        (EpochBasedTrainLoop, dict(epoch=2, max_epochs=3, val_interval=1, val_begin=1), 1),
    ],
)
def test_validations_to_come_are_counted(kind: type, settings: dict, left: int) -> None:
    loop = object.__new__(type('Loop', (kind,), settings))
    info: dict = {'eta': 10.0}
    hub = types.SimpleNamespace(runtime_info=info, update_info=info.__setitem__)
    runner = types.SimpleNamespace(train_loop=loop, val_loop=object(), message_hub=hub)
    assert validations_left(runner) == left
    hook = RunEndHook()
    hook.after_train_iter(runner, 0)
    assert info['eta'] == 10.0  # none was measured
    hook._seconds = [1.0, 3.0]
    hook.after_train_iter(runner, 0)
    assert info['eta'] == 10.0 + 2.0 * left
    runner.val_loop = None
    assert validations_left(runner) == 0


@pytest.mark.parametrize(
    ('error', 'where'),
    [
        (GPU_ERROR, 'GPU'),
        (RuntimeError('CUDA error: out of memory'), 'GPU'),
        (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x'), 'GPU'),
        (RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'), 'GPU'),
        (RuntimeError(CPU_ERROR), 'machine'),
        (MemoryError(), 'machine'),
        (RuntimeError('std::bad_alloc'), 'machine'),
        (OSError(12, 'Cannot allocate memory'), 'machine'),
        (RuntimeError('DataLoader worker (pid 12) is killed by signal: Killed. '), 'worker'),
        (RuntimeError('DataLoader worker (pid 12) is killed by signal: Segmentation fault'), None),
        (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), None),
        (KeyError('CUDA out of memory'), None),
    ],
)
def test_errors_of_memory_are_known(error: Exception, where: str | None) -> None:
    assert shortage(error) == where


def test_a_lost_worker_is_known_by_the_cause() -> None:
    lost = RuntimeError('DataLoader worker (pid(s) 12) exited unexpectedly')
    assert shortage(lost) is None
    lost.__cause__ = RuntimeError('DataLoader worker (pid 12) is killed by signal: Bus error. It')
    assert shortage(lost) == 'worker'


@HOOKS.register_module()
class RunsOut(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        raise RuntimeError(CPU_ERROR)


def test_running_out_is_one_line_that_names_the_options(tmp_path: Path, capsys) -> None:
    runner = build_runner(tiny_config(tmp_path, custom_hooks=[dict(type='RunsOut')]))
    assert run_reporting_errors(runner.train) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        'error: the memory of the machine ran out while training with '
        'train_dataloader.batch_size=2: set with --cfg-options train_dataloader.batch_size=1, or '
        'model.backbone.recompute=True, or model.backbone.with_cp=True'
    )
    assert 'amp' not in line
    with pytest.raises(MemoryShortageError):
        runner.train()


def test_the_crop_and_all_switches_that_are_off_are_named() -> None:
    cfg = Config.fromfile(MINI)
    text = advice(cfg, 'GPU', 'train_dataloader')
    assert 'train_dataloader.dataset.pipeline.2.crop_size=(64, 64)' in text
    assert 'train_dataloader.batch_size=1 and --auto-scale-lr' in text
    assert 'model.backbone.with_cp=True' in text
    assert text.endswith('; or add --amp')
    cfg.model.backbone.update(with_cp=True, recompute=True)
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.train_dataloader.batch_size = 1
    text = advice(cfg, 'GPU', 'train_dataloader')
    assert text.endswith('--cfg-options a smaller crop_size')
    evaluating = advice(cfg, 'GPU', 'val_dataloader')
    assert 'while evaluating with val_dataloader.batch_size=1' in evaluating
    assert 'model.test_cfg.crop_size' in evaluating
    cfg.model.test_cfg = dict(mode='whole')
    assert 'model.test_cfg.mode=slide' in advice(cfg, 'GPU', 'val_dataloader')


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('own_segmentation_sw_mini', 'a smaller crop_size'),
        ('own_retinanet_sw_mini', 'a smaller own_data.image_size'),
    ],
)
def test_options_for_own_data_are_named(name: str, size: str) -> None:
    options = {'own_data.classes': ['a', 'b']}
    cfg = load_config(Path(f'{name}.py'), options)
    text = advice(cfg, 'machine', 'train_dataloader')
    assert f'set with --cfg-options own_data.batch_size=2, or {size}, or model' in text


def test_wrapped_data_sets_and_other_backbones() -> None:
    cfg = Config.fromfile(DETECTOR)
    cfg.model.backbone = dict(type='ResNet', with_cp=False)
    text = advice(cfg, 'machine', 'train_dataloader')
    assert 'a smaller train_dataloader.dataset.dataset.pipeline.1.scale' in text
    assert 'model.backbone.with_cp=True' in text
    assert 'recompute' not in text
    cfg.train_dataloader.num_workers = 4
    assert 'train_dataloader.num_workers=2 (now 4)' in advice(cfg, 'worker', 'train_dataloader')
    assert advice(Config(dict()), 'machine', 'test_dataloader') == (
        'the memory of the machine ran out while evaluating: set with --cfg-options '
        'test_dataloader.batch_size'
    )
