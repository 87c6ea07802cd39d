"""The backend table: who can run an operator, and who is chosen.

A backend is a module with five functions of the same signatures (``shift_add``, ``shift_add_grad``,
``shift_wise_conv2d``, ``shift_wise_conv2d_grad_input``, ``shift_wise_conv2d_grad_weight``), the
device types it runs on (``DEVICES``, ``None`` for all) and ``unavailable_reason() -> str | None``;
``cross_conv2d`` may be there as well. The module itself must be cheap to import: what it needs (the
Taichi runtime, a CUDA context) starts inside the functions. ``unavailable_reason`` is called while
``torch.compile`` traces, which cannot look into ``importlib`` or files: it returns a plain global.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from . import cpp_backend, cuda_backend, taichi_backend, torch_backend

# Name -> module, fastest first: 'auto' takes the first that can run on the device of the tensors.
#
# The order is that of `python tools/benchmark_ops.py` (docs/backends.md holds a run): on the CPU it
# was the same for every stage shape of the networks, batch size and number of threads, so one order
# serves all shapes. No GPU was there to measure `cuda` before `torch`; that place is a guess.
_MODULES: dict[str, ModuleType] = {
    'cuda': cuda_backend,
    'cpp': cpp_backend,
    'torch': torch_backend,
    'taichi': taichi_backend,
}
_ENVIRONMENT_VARIABLE = 'MMSW_BACKEND'

# Read once: tracing compilers see a plain global.
_default_backend = os.environ.get(_ENVIRONMENT_VARIABLE) or 'auto'


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name and cannot run; the message says why and what to do."""


def available_backends() -> dict[str, bool | str]:
    """Backends by name: ``True`` where it runs here, otherwise the reason why not."""
    return {name: _unavailable_reason(name) or True for name in sorted(_MODULES)}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use one backend for every call inside the ``with`` block that names none itself.

    The choice is one for the process, not one per thread.

    Args:
        name: A name of :func:`available_backends`, or ``'auto'``.

    Raises:
        ValueError: If there is no backend of this name.
        BackendUnavailableError: If it cannot run here.
    """
    global _default_backend
    if name != 'auto':
        _require(name, 'use_backend')
    previous, _default_backend = _default_backend, name
    try:
        yield
    finally:
        _default_backend = previous


def choose_backend(
    name: str | None, device_type: str = 'cpu', function: str = 'shift_wise_conv2d'
) -> str:
    """Resolve a backend argument to the name of a backend that runs here.

    An explicit name wins over :func:`use_backend`, that over the environment variable
    ``MMSW_BACKEND``. A named backend never falls back to another one. ``'auto'`` takes the fastest;
    while a program is exported it takes ``'torch'``, whose operators need no mmsw.

    Args:
        name: Backend name, or ``None`` or ``'auto'`` for the default.
        device_type: Type of the device that the tensors are on.
        function: What the backend has to have.

    Raises:
        ValueError: If there is no backend of this name.
        BackendUnavailableError: If it cannot run here, on this device, or has no such function.
    """
    source = 'backend'
    if name is None or name == 'auto':
        name, source = _default_backend, f'use_backend or {_ENVIRONMENT_VARIABLE}'
    if name != 'auto':
        _require(name, source)
        reason = _mismatch(name, device_type, function)
        if reason is not None:
            raise BackendUnavailableError(_cannot_run(source, name, reason))
        return name
    if _is_exporting():
        return 'torch'
    return next(
        candidate
        for candidate in _MODULES
        if _mismatch(candidate, device_type, function) is None
        and _unavailable_reason(candidate) is None
    )


def backend_module(name: str) -> ModuleType:
    """Module of an available backend."""
    return _MODULES[name]


def _require(name: str, source: str) -> None:
    if name not in _MODULES:
        raise ValueError(
            f'{source}: unknown backend {name!r}; known are {sorted(_MODULES)} and "auto"'
        )
    reason = _unavailable_reason(name)
    if reason is not None:
        raise BackendUnavailableError(_cannot_run(source, name, reason))


def _unavailable_reason(name: str) -> str | None:
    return _MODULES[name].unavailable_reason()


def _mismatch(name: str, device_type: str, function: str) -> str | None:
    """Why a backend that runs here cannot take this call; meta tensors never reach a backend."""
    module = _MODULES[name]
    if not hasattr(module, function):
        return f'it has no {function}'
    if device_type == 'meta' or module.DEVICES is None or device_type in module.DEVICES:
        return None
    return f'it takes tensors on {" or ".join(module.DEVICES)}, not on {device_type}'


def _cannot_run(source: str, name: str, reason: str) -> str:
    return (
        f'{source}: backend {name!r} cannot run here: {reason}. '
        "Use backend='torch', which always runs, or 'auto'."
    )


def _is_exporting() -> bool:
    # torch < 2.7 does not tell exporting from compiling
    ask = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)
    return ask()
