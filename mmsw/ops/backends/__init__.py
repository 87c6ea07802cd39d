"""The backend table: who can run an operator, and who is chosen.

:class:`~mmsw.ops.backends.backend.Backend` says what a backend has.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.autograd import forward_ad

from mmsw.errors import BackendUnavailableError, UnknownBackendError

from . import cpp_backend, cuda_backend, first_use, taichi_backend, torch_backend
from .backend import Backend
from .call import Call

# Name -> backend, fastest first: 'auto' takes the first that can run the call.
#
# The order is that of `python tools/benchmark_ops.py` (docs/backends.md holds a run): on the CPU it
# was the same for every stage shape of the networks, batch size and number of threads, so one order
# serves all shapes. On the one GPU that was measured `cuda` came before `torch` for all of them; on
# every other one it has to agree with `torch` on a tiny map before it is used (first_use.py).
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
_chosen: dict[Call, str] = {}  # what 'auto' found outside of compilers: it stays that for good


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
    """See whether a backend argument, or the default that stands in for it, runs here.

    Raises:
        ValueError: If there is no backend of this name.
        BackendUnavailableError: If it cannot run here.
    """
    name, source = _or_default(name)
    if name != 'auto':
        _require(name, source)


def choose_backend(name: str | None, call: Call | None = None) -> str:
    """Resolve a backend argument to the name of a backend that runs a call.

    An explicit name wins over :func:`use_backend`, that over the environment variable
    ``MMSW_BACKEND``. A named backend never falls back to another one, but where it lacks the
    function of the call: then, and for ``'auto'``, the first in the fixed order that takes the call
    is chosen. While a program is exported, traced or transformed it is ``'torch'`` for every name.

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
    name, source = _or_default(name)
    if name != 'auto':
        _require(name, source)
    if call is None:
        return name if name != 'auto' else _fastest(None)
    if needs_plain_operators(name):
        return 'torch'
    if name == 'auto' or _lacks(name, call.function):
        return _fastest(call)
    if call.device.type != 'meta':  # meta tensors never reach a backend
        reason = _MODULES[name].refuses(call)
        if reason is not None:
            raise BackendUnavailableError(_cannot_run(source, name, reason, 'this call'))
        reason = _first_use_problem(name, call)
        if reason is not None:
            raise BackendUnavailableError(_cannot_run(source, name, reason))
    _tell_choice(name, call.device.type)
    return name


def _or_default(name: str | None) -> tuple[str, str]:
    """The backend that an argument stands for, and where it was named."""
    if name is None or name == 'auto':
        return _default_backend, f'use_backend or {_ENVIRONMENT_VARIABLE}'
    return name, 'backend'


def _fastest(call: Call | None) -> str:
    """What ``'auto'`` takes."""
    if torch.compiler.is_compiling():  # compilers guard what they read of a dictionary
        return _first_that_takes(call)
    if call not in _chosen:
        name = _first_that_takes(call)
        if call is None or not first_use.can_compare(call):
            return name
        if call.device.type == 'cpu' and name != 'cpp':
            _tell_slower(name)
        _tell_choice(name, call.device.type)
        _chosen[call] = name
    return _chosen[call]


def _first_that_takes(call: Call | None) -> str:
    return next(name for name in _MODULES if _auto_may_take(name, call))


def needs_plain_operators(name: str | None) -> bool:
    """Whether operators of torch alone will do: they are exported, traced or transformed.

    An exported program runs where there is no mmsw. The transforms of ``torch.func`` and
    forward-mode differentiation know the operators of torch.
    """
    if not torch.compiler.is_compiling():
        transformed = torch._C._functorch.peek_interpreter_stack() is not None
        return transformed or torch.jit.is_tracing() or forward_ad._current_level >= 0
    # What is_exporting() returns; while torch up to 2.11 compiles, that function is always true.
    exporting = getattr(torch.compiler, '_is_exporting_flag', None)
    if exporting is None:  # torch < 2.7 does not tell exporting from compiling
        return name in (None, 'auto')
    return exporting


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


def _lacks(name: str, function: str) -> bool:
    return not hasattr(_MODULES[name], function)


# Compilers take the answers as they are: a backend may import its library to give one. This is what
# torch.compiler.assume_constant_result does, which would import the whole compiler.
for _question in (_unavailable_reason, _lacks):
    _question._dynamo_marked_constant = True


def _auto_may_take(name: str, call: Call | None) -> bool:
    """Whether ``'auto'`` can trust a backend with a call."""
    module = _MODULES[name]
    if call is not None and _lacks(name, call.function):
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
