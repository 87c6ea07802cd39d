"""Starting Taichi and running its kernels beside torch; see ``taichi_backend.py`` for the rules."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

# Taichi's runtime must not be entered by two threads at once.
_LOCK = threading.RLock()


@contextlib.contextmanager
def running_kernels(tensor: Tensor) -> Iterator[ModuleType]:
    """The kernels, for the tensor's device; one thread at a time."""
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
    ti = _import_taichi()
    runtime = ti.lang.impl.get_runtime()
    if runtime.prog is None:
        if device.type not in ('cpu', 'cuda'):
            _refuse(device, 'runs on cpu and cuda')
        options = dict(log_level=ti.ERROR, offline_cache=True, fast_math=False)
        if device.type == 'cpu':
            options.update(arch=ti.cpu, cpu_max_num_threads=torch.get_num_threads())
        else:
            options.update(arch=ti.cuda)
        with _environment('TI_SKIP_VERSION_CHECK', 'ON'), _quiet():
            ti.init(enable_fallback=False, **options)
    arch = ti.cfg.arch
    if arch in (ti.x64, ti.arm64):
        if device.type != 'cpu':
            _refuse(device, 'has been started on the CPU in this process')
    elif arch == ti.cuda:
        if device.type != 'cuda' or device.index not in (None, 0):
            _refuse(device, 'has been started on cuda:0 in this process')
    else:
        _refuse(device, f'has been started on {arch} in this process, which mmsw does not support')


def _refuse(device: torch.device, state: str) -> None:
    from mmsw.errors import BackendUnavailableError

    raise BackendUnavailableError(
        f"backend 'taichi' cannot take tensors on {device}: Taichi {state}; "
        "move the tensors or use backend='torch' for them"
    )


@lru_cache(maxsize=1)
def _import_taichi() -> ModuleType:
    with _environment('ENABLE_TAICHI_HEADER_PRINT', '0'):
        import taichi
    return taichi


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable that Taichi reads, and put it back."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


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
