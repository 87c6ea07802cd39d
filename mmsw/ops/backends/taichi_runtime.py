"""Starting Taichi and running its kernels beside torch; see ``taichi_backend.py`` for the rules.

What the user's ``TI_...`` environment variables set is left as it is. Compiled kernels are kept in
Taichi's own cache folder. Where that folder cannot be made, Taichi would crash as the process ends,
even if it is told to keep nothing; it then gets an empty folder, and keeps nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from mmsw.errors import BackendUnavailableError

_ARCHS = ('x64', 'arm64', 'cuda')

# Taichi's runtime must not be entered by two threads at once.
_LOCK = threading.RLock()
_logger = logging.getLogger('mmsw.ops')


def _find_problem() -> str | None:
    if importlib.util.find_spec('taichi') is None:
        return 'the package taichi is not installed; install it with "pip install taichi"'
    arch = os.environ.get('TI_ARCH')
    if arch is not None and arch not in _ARCHS:  # Taichi aborts the process at an unknown name
        return f'TI_ARCH is {arch!r}; set it to one of {", ".join(_ARCHS)}, or unset it'
    return None


_problem = _find_problem()  # here and not at the first call, which a compiler may be tracing


def start_problem() -> str | None:
    """Why Taichi cannot run in this process; ``None`` if it can."""
    return _problem


def _after_fork() -> None:
    """Taichi's threads are not copied to a child: whatever waits for them waits for ever."""
    global _problem
    taichi = sys.modules.get('taichi')
    if taichi is not None and taichi.lang.impl.get_runtime().prog is not None:
        _problem = (
            'this process was forked from one that had started Taichi, whose threads it lacks; '
            "start it with the method 'spawn' (a DataLoader: multiprocessing_context='spawn')"
        )


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def running_kernels(tensor: Tensor) -> Iterator[ModuleType]:
    """The kernels, for the tensor's device; one thread at a time.

    Raises:
        BackendUnavailableError: If Taichi cannot run in this process or on the device.
    """
    if _problem is not None:  # before the lock, which a thread of the parent may have held
        _refuse(tensor.device, _problem)
    with _LOCK, _denormals_kept():
        _start(tensor.device)
        from . import taichi_kernels

        yield taichi_kernels


def run_kernel(kernel: Callable[..., None], *arguments: Tensor | int) -> None:
    """Run a kernel after what torch has queued and before what it queues next."""
    stream = None
    if arguments[0].device.type == 'cuda':
        stream = torch.cuda.current_stream(arguments[0].device)
        stream.synchronize()
    kernel(*arguments)
    if stream is not None:
        import taichi as ti

        ti.sync()


def _start(device: torch.device) -> None:
    """Start Taichi unless it runs already, and refuse a device that does not fit its arch."""
    folder = _cache_folder()
    with _cache_home():
        ti = _import_taichi()
        if ti.lang.impl.get_runtime().prog is None:
            _init(ti, device, folder)
    arch = ti.cfg.arch
    if arch in (ti.x64, ti.arm64):
        if device.type != 'cpu':
            _refuse(device, 'Taichi has been started on the CPU in this process; move the tensors')
    elif arch == ti.cuda:
        if device.type != 'cuda' or device.index not in (None, 0):
            _refuse(device, 'Taichi has been started on cuda:0 in this process; move the tensors')
    else:
        _refuse(device, f'Taichi has been started on {arch}; start it on the CPU or on CUDA')


def _init(ti: ModuleType, device: torch.device, cache: Path | None) -> None:
    if device.type not in ('cpu', 'cuda'):
        _refuse(device, 'Taichi runs on cpu and cuda; move the tensors')
    options = dict(log_level='error', fast_math=False)
    if device.type == 'cpu':
        options.update(cpu_max_num_threads=torch.get_num_threads())
    # An argument of ti.init wins over the variable of its name.
    options = {
        name: value for name, value in options.items() if not os.environ.get(f'TI_{name.upper()}')
    }
    options.update(_cache_options(cache))
    arch = ti.cpu if device.type == 'cpu' else ti.cuda
    try:
        with _environment('TI_SKIP_VERSION_CHECK', 'ON'), _quiet():
            ti.init(arch=arch, enable_fallback=False, **options)
    except (RuntimeError, ValueError) as error:  # a GPU that is not there, a variable's value
        _refuse(device, f'Taichi does not start ({error}); see its TI_ variables')


def _cache_options(folder: Path | None) -> dict[str, object]:
    """None where kernels can be kept; otherwise a folder to end with, in which nothing is kept."""
    problem = _cache_problem(folder)
    if problem is None:
        return {}
    nowhere = Path(tempfile.gettempdir(), 'mmsw-taichi')
    nowhere.mkdir(exist_ok=True)
    options: dict[str, object] = dict(offline_cache_file_path=str(nowhere))
    if os.environ.get('TI_OFFLINE_CACHE') != '0':
        options.update(offline_cache=False)
        _logger.warning(
            "mmsw: backend 'taichi' compiles its kernels anew in every process, since they cannot "
            'be kept: %s. Set TI_OFFLINE_CACHE_FILE_PATH to a folder that can be written',
            problem,
        )
    return options


def _cache_problem(folder: Path | None) -> str | None:
    """Why compiled kernels cannot be written where Taichi would keep them, or ``None``."""
    if folder is None:
        return 'neither HOME nor XDG_CACHE_HOME is set'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return str(error)


def _cache_folder() -> Path | None:
    """Where Taichi keeps compiled kernels; ``None`` where it finds no home folder."""
    if folder := os.environ.get('TI_OFFLINE_CACHE_FILE_PATH'):
        return Path(folder)
    if (cache := os.environ.get('XDG_CACHE_HOME')) is not None:
        return Path(cache or '/', 'taichi', 'ticache')
    if (home := os.environ.get('HOME')) is not None:
        return Path(home or '/', '.cache', 'taichi', 'ticache')
    return None if os.name == 'posix' else Path('C:/taichi_cache/ticache')


def _cache_home() -> contextlib.AbstractContextManager:
    """Without a home folder Taichi aborts the process as it looks for its cache."""
    if os.name != 'posix' or 'HOME' in os.environ:
        return contextlib.nullcontext()
    return _environment('XDG_CACHE_HOME', tempfile.gettempdir())


def _refuse(device: torch.device, reason: str) -> None:
    raise BackendUnavailableError(
        f"backend 'taichi' cannot take tensors on {device}: {reason}; use backend='torch' for them"
    )


@lru_cache(maxsize=1)
def _import_taichi() -> ModuleType:
    with _environment('ENABLE_TAICHI_HEADER_PRINT', '0'):
        import taichi
    return taichi


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable that Taichi reads, unless the user has, and take it away again."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


@contextlib.contextmanager
def _denormals_kept() -> Iterator[None]:
    """Taichi makes the thread that starts it flush denormal numbers to zero; undo that."""
    kept = _keeps_denormals()
    try:
        yield
    finally:
        if kept and not _keeps_denormals():
            torch.set_flush_denormal(False)


def _keeps_denormals() -> bool:
    return sys.float_info.min / 2 > 0


def _quiet() -> contextlib.AbstractContextManager:
    """Taichi announces itself with ``print``."""
    return contextlib.redirect_stdout(io.StringIO())
