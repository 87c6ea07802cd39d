"""Memory that runs out: which options of a config need less of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmsw.component_name import component_name
from mmsw.errors import MemoryShortageError, UsageError
from mmsw.wording import short

from .data import iter_datasets
from .options.crop_size import set_crop_size

# What libraries say; several of them raise a bare RuntimeError.
_OF_GPU = re.compile(
    r'(CUDA|HIP|NPU|MPS)( error:)?( backend)? out of memory'
    r'|(CUBLAS|CUDNN|CUSOLVER|CUFFT|CUSPARSE|NCCL)\w*_(ALLOC_FAILED|OUT_OF_MEMORY)'
    r'|cudaErrorMemoryAllocation'
)
_OF_MACHINE = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|std::bad_alloc"
    r'|Insufficient memory|Cannot allocate memory|Unable to allocate'
)
_WORKER_LOST = re.compile(r'DataLoader worker .* is killed by signal: (Killed|Bus error)')
_GPU_ERRORS = tuple(
    kind
    for kind in (
        getattr(torch, 'OutOfMemoryError', None),
        getattr(torch.cuda, 'OutOfMemoryError', None),
    )
    if kind is not None
)
# What sets the size of images in a pipeline -> argument with it.
_SIZES = {
    'RandomCrop': 'crop_size',
    'RandomResizedCrop': 'scale',
    'CenterCrop': 'crop_size',
    'Resize': 'scale',
    'RandomResize': 'scale',
    'RandomChoiceResize': 'scales',
}


@contextmanager
def memory_shortage_explained(runner: Runner) -> Iterator[None]:
    """Inside, an error of memory that ran out is one line that names options.

    Args:
        runner: That trains or tests; its ``loader_at_work`` says which images it saw.

    Raises:
        MemoryShortageError: Instead of the error of torch, numpy or OpenCV.
    """
    try:
        yield
    except Exception as error:
        where = shortage(error)
        if where is None or isinstance(error, MemoryShortageError):
            raise
        text = advice(runner.cfg, where, runner.loader_at_work)
        raise MemoryShortageError(f'{text}. The error was {short(error)}') from error


def shortage(error: BaseException) -> str | None:
    """Which memory an error is about.

    Returns:
        ``'GPU'``, ``'machine'``, ``'worker'`` for a process that loads data and was ended, or
        ``None`` for any other error.
    """
    if isinstance(error, _GPU_ERRORS):
        return 'GPU'
    if isinstance(error, MemoryError):
        return 'machine'
    text = str(error) if isinstance(error, (RuntimeError, OSError)) or _is_cv2(error) else ''
    # torch may say that a worker is gone, and by what only in the error that this one is from
    if _WORKER_LOST.search(text) or (text and _WORKER_LOST.search(str(error.__cause__))):
        return 'worker'
    if _OF_GPU.search(text):
        return 'GPU'
    return 'machine' if _OF_MACHINE.search(text) else None


def _is_cv2(error: BaseException) -> bool:
    return type(error).__module__.partition('.')[0] == 'cv2'


def advice(cfg: Config, where: str, loader: str) -> str:
    """What ran out with which images, and the options that need less.

    Args:
        cfg: Of the run.
        where: As :func:`shortage` has it.
        loader: Name of the loader whose images the model saw.

    Returns:
        One sentence without its full stop.
    """
    settings = cfg.get(loader) or {}
    size = settings.get('batch_size')
    crop = _crop(settings, loader)
    present = [] if size is None else [f'{loader}.batch_size={size}']
    present += [f'{key}={value}' for key, value in crop]
    having = f' with {" and ".join(present)}' if present else ''
    if where == 'worker':
        workers = settings.get('num_workers', 0)
        return (
            f'a process that loads data was ended{having}, most often since the memory of the '
            f'machine or its /dev/shm ran out: set --cfg-options {loader}.num_workers='
            f'{max(0, workers // 2)} (now {workers}), or a smaller {loader}.batch_size'
        )
    of = 'the GPU' if where == 'GPU' else 'the machine'
    doing = 'training' if loader == 'train_dataloader' else 'evaluating'
    cures = []
    own = _own_task(cfg) if doing == 'training' else None
    if size is None or size > 1:
        half = '' if size is None else f'={size // 2}'
        if own:  # the rate follows
            cures.append(f'own_data.batch_size{half}')
        else:
            and_rate = ' and --auto-scale-lr' if _scales(cfg) and doing == 'training' else ''
            cures.append(f'{loader}.batch_size{half}{and_rate}')
    cures += [f'a smaller {_short_crop(cfg, loader, own) or key}' for key, _ in crop]
    cures += _recomputing(cfg) if doing == 'training' else _sliding(cfg)
    text = f'the memory of {of} ran out while {doing}{having}'
    text += f': set with --cfg-options {", or ".join(cures)}' if cures else ''
    amp = component_name((cfg.get('optim_wrapper') or {}).get('type')) != 'AmpOptimWrapper'
    return f'{text}; or add --amp' if where == 'GPU' and doing == 'training' and amp else text


def _scales(cfg: Config) -> bool:
    scaling = cfg.get('auto_scale_lr') or {}
    return bool(scaling.get('base_batch_size')) and not scaling.get('enable')


def _own_task(cfg: Config) -> str | None:
    """What ``own_data`` of the file that a config was read from is for, if it has one.

    The config of a run has none any more, but options for the file still go to it.
    """
    try:
        own = Config.fromfile(cfg.filename).get('own_data')
    except Exception:  # without a file, or it has gone
        return None
    return own.get('task') if isinstance(own, dict) else None


def _short_crop(cfg: Config, loader: str, own: str | None) -> str | None:
    """The option of one word that sets the size of images in every place, if there is one."""
    if loader != 'train_dataloader':
        return None
    if own:
        return 'crop_size' if own == 'segmentation' else 'own_data.image_size'
    try:
        set_crop_size(copy.deepcopy(cfg), 32)
    except (UsageError, AttributeError, TypeError, ValueError):
        return None
    return 'crop_size'


def _crop(loader: dict, name: str) -> list[tuple[str, Any]]:
    """The last option in a pipeline that sets the size of images, and its value."""
    dataset = loader.get('dataset')
    for inner in iter_datasets(dataset) if isinstance(dataset, dict) else ():
        pipeline = inner.get('pipeline') or ()
        found = [
            (f'{index}.{_SIZES[component_name(step.get("type"))]}', step)
            for index, step in enumerate(pipeline)
            if isinstance(step, dict) and component_name(step.get('type')) in _SIZES
        ]
        for key, step in reversed(found):
            value = step.get(key.partition('.')[2])
            if value is not None:
                path = _path_to(dataset, inner)
                return [(f'{name}.dataset.{path}pipeline.{key}', value)]
    return []


def _path_to(outer: Any, inner: dict) -> str | None:
    """Dotted keys that lead from a data set to one that it wraps, if it does."""
    if outer is inner:
        return ''
    items = outer.items() if isinstance(outer, dict) else enumerate(outer)
    for key, value in items:
        if isinstance(value, (dict, list, tuple)):
            rest = _path_to(value, inner)
            if rest is not None:
                return f'{key}.{rest}'
    return None


def _recomputing(cfg: Config) -> list[str]:
    """Switches of the backbone that trade time for memory and are off."""
    backbone = (cfg.get('model') or {}).get('backbone')
    if not isinstance(backbone, dict):
        return []
    name = component_name(backbone.get('type'))
    known = [key for key in ('with_cp',) if key in backbone]
    if name.endswith('ShiftWiseNet'):
        known = ['recompute', 'with_cp']
    elif name.endswith('SLaK'):
        known = ['with_cp']
    return [f'model.backbone.{key}=True' for key in known if not backbone.get(key)]


def _sliding(cfg: Config) -> list[str]:
    """What lets a segmentor see a large image in windows."""
    test_cfg = (cfg.get('model') or {}).get('test_cfg')
    if cfg.get('default_scope') != 'mmseg' or not isinstance(test_cfg, dict):
        return []
    if test_cfg.get('mode', 'whole') == 'whole':
        return ['model.test_cfg.mode=slide with model.test_cfg.crop_size and .stride']
    return ['a smaller model.test_cfg.crop_size']
