"""The backend table: who can run an operator, and who is chosen.

:class:`~mmsw.ops.backends.backend.Backend` says what a backend has.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mmsw.errors import BackendUnavailableError, UnknownBackendError

from . import cpp_backend, cuda_backend, first_use, taichi_backend, torch_backend
from .backend import Backend
from .call import Call

# Name -> backend, fastest first: 'auto' takes the first that can run the call.
#
# The order is that of `python tools/benchmark_ops.py` (docs/backends.md holds a run): on the CPU it
# was the same for every stage shape of the networks, batch size and number of threads, so one order
# serves all shapes. No GPU was there to measure `cuda` before `torch`; that place is a guess, and
# `cuda` has to agree with `torch` on a tiny map before it is used (first_use.py).
_MODULES: dict[str, Backend] = {
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


def check_backend(name: str | None) -> None:
    """See whether a backend argument names one that runs here; ``None`` and ``'auto'`` do.

    Raises:
        ValueError: If there is no backend of this name.
        BackendUnavailableError: If it cannot run here.
    """
    if name is not None and name != 'auto':
        _require(name, 'backend')


def choose_backend(name: str | None, call: Call | None = None) -> str:
    """Resolve a backend argument to the name of a backend that runs a call.

    An explicit name wins over :func:`use_backend`, that over the environment variable
    ``MMSW_BACKEND``. A named backend never falls back to another one, but where it lacks the
    function of the call: then, and for ``'auto'``, the fastest that takes the call is chosen. While
    a program is exported or traced it is ``'torch'`` for every name: plain operators need no mmsw.

    A backend that has to be checked first is compared with ``'torch'`` here. While a program is
    compiled it cannot be: ``'auto'`` then takes it only if an earlier comparison was good.

    Args:
        name: Backend name, or ``None`` or ``'auto'`` for the default.
        call: What it is to run; ``None`` asks only whether a backend can run here at all.

    Raises:
        ValueError: If there is no backend of this name.
        BackendUnavailableError: If it cannot run here, refuses this call, or differs from
            ``'torch'``.
    """
    source = 'backend'
    if name is None or name == 'auto':
        name, source = _default_backend, f'use_backend or {_ENVIRONMENT_VARIABLE}'
    if name != 'auto':
        _require(name, source)
    if call is not None and is_exporting(name):
        return 'torch'
    if name == 'auto' or (call is not None and not hasattr(_MODULES[name], call.function)):
        name = next(candidate for candidate in _MODULES if _auto_may_take(candidate, call))
        if call is not None and call.device.type == 'cpu' and name != 'cpp':
            _tell_slower(name)
    elif call is not None and call.device.type != 'meta':  # meta tensors never reach a backend
        reason = _MODULES[name].refuses(call)
        if reason is not None:
            raise BackendUnavailableError(_cannot_run(source, name, reason, 'this call'))
        reason = _first_use_problem(name, call)
        if reason is not None:
            raise BackendUnavailableError(_cannot_run(source, name, reason))
    if call is not None:
        _tell_choice(name, call.device.type)
    return name


def is_exporting(name: str | None) -> bool:
    """Whether a program is recorded that has to run elsewhere: exported or traced."""
    if torch.jit.is_tracing():
        return True
    ask = getattr(torch.compiler, 'is_exporting', None)
    if ask is None:  # torch < 2.7 does not tell exporting from compiling
        return name in (None, 'auto') and torch.compiler.is_compiling()
    return ask()


def backend_module(name: str) -> Backend:
    """An available backend."""
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


def _auto_may_take(name: str, call: Call | None) -> bool:
    """Whether ``'auto'`` can trust a backend with a call."""
    module = _MODULES[name]
    if call is not None and not hasattr(module, call.function):
        return False
    if call is None or call.device.type == 'meta':
        return _unavailable_reason(name) is None
    if module.refuses(call) is not None:
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


def _first_use_problem(name: str, call: Call) -> str | None:
    """What a comparison says against a backend that was named; ``None`` where none can be made."""
    module = _MODULES[name]
    if not module.NEEDS_CHECK or not first_use.can_compare(call):
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


def _cannot_run(source: str, name: str, reason: str, what: str = 'here') -> str:
    return (
        f'{source}: backend {name!r} cannot run {what}: {reason}. '
        "Use backend='torch', which always runs, or 'auto'."
    )
