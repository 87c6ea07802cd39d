"""The backend table: who can run an operator, and who is chosen.

A backend is a module with five functions of the same signatures (``shift_add``, ``shift_add_grad``,
``shift_wise_conv2d``, ``shift_wise_conv2d_grad_input``, ``shift_wise_conv2d_grad_weight``) and
``unavailable_reason() -> str | None``. The module itself must be cheap to import: what it needs (a
compiler, the Taichi runtime, a CUDA context) starts inside those functions. They are called while
``torch.compile`` traces, which cannot look into ``importlib``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from . import torch_backend

# Name -> module, fastest first: 'auto' takes the first that can run. A backend without a module is
# announced but not part of this version.
_MODULES: dict[str, ModuleType | None] = {
    'cuda': None,
    'cpp': None,
    'taichi': None,
    'torch': torch_backend,
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


def choose_backend(name: str | None) -> str:
    """Resolve a backend argument to the name of a backend that runs here.

    An explicit name wins over :func:`use_backend`, that over the environment variable
    ``MMSW_BACKEND``. A named backend never falls back to another one.

    Args:
        name: Backend name, or ``None`` or ``'auto'`` for the default.

    Raises:
        ValueError: If there is no backend of this name.
        BackendUnavailableError: If it cannot run here.
    """
    source = 'backend'
    if name is None or name == 'auto':
        name, source = _default_backend, f'use_backend or {_ENVIRONMENT_VARIABLE}'
    if name != 'auto':
        _require(name, source)
        return name
    return next(candidate for candidate in _MODULES if _unavailable_reason(candidate) is None)


def backend_module(name: str) -> ModuleType:
    """Module of an available backend."""
    module = _MODULES[name]
    assert module is not None, name
    return module


def _require(name: str, source: str) -> None:
    if name not in _MODULES:
        raise ValueError(
            f'{source}: unknown backend {name!r}; known are {sorted(_MODULES)} and "auto"'
        )
    reason = _unavailable_reason(name)
    if reason is not None:
        raise BackendUnavailableError(
            f'{source}: backend {name!r} cannot run here: {reason}. '
            "Use backend='torch', which always runs, or 'auto'."
        )


def _unavailable_reason(name: str) -> str | None:
    module = _MODULES[name]
    if module is None:
        return 'this version of mmsw does not contain it'
    return module.unavailable_reason()
