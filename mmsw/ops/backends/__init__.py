"""The backend table: who can run an operator, and who is chosen.

A backend is a module with five functions of the same signatures (``shift_add``, ``shift_add_grad``,
``shift_wise_conv2d``, ``shift_wise_conv2d_grad_input``, ``shift_wise_conv2d_grad_weight``), the
device types it runs on (``DEVICES``, ``None`` for all), ``unavailable_reason() -> str | None`` and
``limit(function, call) -> str | None``, why ``'auto'`` should keep these sizes away from it (or
``None`` for a backend that takes every size).
``HAS_CROSS`` says whether it has ``cross_conv2d`` as well, ``NEEDS_CHECK`` whether it has to be
compared with ``torch`` at its first use on a device.

The module itself must be cheap to import: what it needs (the Taichi runtime, a CUDA context) starts
inside the functions. ``unavailable_reason`` and ``limit`` are called while ``torch.compile``
traces, which cannot look into ``importlib`` or files: they return what is known already.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from mmsw.errors import BackendUnavailableError, UnknownBackendError

from . import cpp_backend, cuda_backend, first_use, taichi_backend, torch_backend
from .call import Call

# Name -> module, fastest first: 'auto' takes the first that can run on the device of the tensors.
#
# The order is that of `python tools/benchmark_ops.py` (docs/backends.md holds a run): on the CPU it
# was the same for every stage shape of the networks, batch size and number of threads, so one order
# serves all shapes. No GPU was there to measure `cuda` before `torch`; that place is a guess, and
# `cuda` has to agree with `torch` on a tiny map before it is used (first_use.py).
_MODULES: dict[str, ModuleType] = {
    'cuda': cuda_backend,
    'cpp': cpp_backend,
    'torch': torch_backend,
    'taichi': taichi_backend,
}
_ENVIRONMENT_VARIABLE = 'MMSW_BACKEND'

# Read once: tracing compilers see a plain global.
_default_backend = os.environ.get(_ENVIRONMENT_VARIABLE) or 'auto'

_logger = logging.getLogger('mmsw.ops')
_told: set[tuple] = set()  # what was logged: once per process


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
    name: str | None,
    device_type: str = 'cpu',
    function: str = 'shift_wise_conv2d',
    call: Call | None = None,
) -> str:
    """Resolve a backend argument to the name of a backend that runs here.

    An explicit name wins over :func:`use_backend`, that over the environment variable
    ``MMSW_BACKEND``. A named backend never falls back to another one. ``'auto'`` takes the fastest
    that can take these sizes; while a program is exported it takes ``'torch'``, whose operators
    need no mmsw.

    A backend that has to be checked first is compared with ``'torch'`` here. While a program is
    traced it cannot be: ``'auto'`` then takes it only if an earlier comparison was good.

    Args:
        name: Backend name, or ``None`` or ``'auto'`` for the default.
        device_type: Type of the device that the tensors are on.
        function: What the backend has to have.
        call: What it is to run; ``None`` asks neither for sizes nor for a comparison.

    Raises:
        ValueError: If there is no backend of this name.
        BackendUnavailableError: If it cannot run here, on this device, has no such function, or
            differs from ``'torch'``.
    """
    source = 'backend'
    if name is None or name == 'auto':
        name, source = _default_backend, f'use_backend or {_ENVIRONMENT_VARIABLE}'
    if name != 'auto':
        _require(name, source)
        reason = _mismatch(name, device_type, function) or _first_use_problem(name, call)
        if reason is not None:
            raise BackendUnavailableError(_cannot_run(source, name, reason))
        _tell_choice(name, device_type)
        return name
    if _is_exporting():
        return 'torch'
    chosen = next(
        candidate
        for candidate in _MODULES
        if _mismatch(candidate, device_type, function) is None
        and _auto_may_take(candidate, function, call)
    )
    _tell_choice(chosen, device_type)
    if device_type == 'cpu' and chosen != 'cpp':
        _tell_slower(chosen)
    return chosen


def backend_module(name: str) -> ModuleType:
    """Module of an available backend."""
    return _MODULES[name]


def _require(name: str, source: str) -> None:
    if name not in _MODULES:
        raise UnknownBackendError(
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
    if function == 'cross_conv2d' and not module.HAS_CROSS:
        return f'it has no {function}'
    if device_type == 'meta' or module.DEVICES is None or device_type in module.DEVICES:
        return None
    return f'it takes tensors on {" or ".join(module.DEVICES)}, not on {device_type}'


def _auto_may_take(name: str, function: str, call: Call | None) -> bool:
    """Whether ``'auto'`` can trust a backend with a call that it has the function for."""
    module = _MODULES[name]
    if call is None or call.device.type == 'meta':
        return _unavailable_reason(name) is None
    if module.limit is not None and module.limit(function, call) is not None:
        return False
    if not module.NEEDS_CHECK:
        return _unavailable_reason(name) is None
    if not first_use.can_compare(call):
        return first_use.has_passed(name, module, call)
    if _unavailable_reason(name) is not None:
        return False
    problem = first_use.find_problem(name, module, call)
    if problem is not None and _first_time('problem', name, problem):
        _logger.warning("mmsw: 'auto' leaves out backend %r on %s: %s", name, call.device, problem)
    return problem is None


def _first_use_problem(name: str, call: Call | None) -> str | None:
    """What a comparison says against a backend that was named; ``None`` where none can be made."""
    module = _MODULES[name]
    if call is None or call.device.type == 'meta' or not module.NEEDS_CHECK:
        return None
    if not first_use.can_compare(call):
        return None
    return first_use.find_problem(name, module, call)


def _tell_choice(name: str, device_type: str) -> None:
    if torch.compiler.is_compiling() or device_type == 'meta':
        return
    if _first_time('choice', name, device_type):
        _logger.info('backend %r runs the operators on %s', name, device_type)


def _tell_slower(name: str) -> None:
    """Say once why the CPU does not run the fastest backend; never while a compiler traces."""
    if torch.compiler.is_compiling() or 'cpp' not in _MODULES:
        return
    reason = _unavailable_reason('cpp')
    if reason is not None and _first_time('slower'):
        _logger.warning(
            "mmsw: the operators run on backend %r, which is slower than 'cpp' on the CPU; 'cpp' "
            'cannot run here: %s. MMSW_BACKEND=%s silences this line',
            name,
            reason,
            name,
        )


def _first_time(*what: str) -> bool:
    if what in _told:
        return False
    _told.add(what)
    return True


def _cannot_run(source: str, name: str, reason: str) -> str:
    return (
        f'{source}: backend {name!r} cannot run here: {reason}. '
        "Use backend='torch', which always runs, or 'auto'."
    )


def _is_exporting() -> bool:
    # torch < 2.7 does not tell exporting from compiling
    ask = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)
    return ask()
