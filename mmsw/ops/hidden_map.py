"""One pass over the map of hidden units between two products: bias, GELU, sum of squares.

Maps are channel-major, ``[B, K, P]``: K hidden units at P positions. On the CPU the compiled
library reads and writes the map once (``csrc/cpu/hidden_map.cpp``). Everywhere else, and where a
gradient is wanted or a program is traced, these are plain operators of PyTorch.

GELU is the exact one, with the error function. Compiled, in float32, it is off by less than 2.2e-7
of the value where that is positive, and by less than 4e-7, 1.2e-6 and 4e-6 of it down to -1, -3 and
-5; below -11.6 it is zero. Half precision is computed in float32 and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import backend_module, choose_backend, torch_backend
from .backends.backend import Backend
from .backends.call import Call
from .functional import check_dtype


def bias_gelu(hidden: Tensor, bias: Tensor, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """GELU of ``hidden + bias``, and the sum of its squares over the positions.

    The sums are those of the values before they are rounded to half precision. They do not depend
    on the number of threads.

    Args:
        hidden: ``[B, K, P]``, float32, float64, float16 or bfloat16. It may be overwritten where no
            gradient is wanted.
        bias: ``[K]`` or ``[B, K]``, any of these types.
        backend: A name of :func:`~mmsw.ops.available_backends`; ``None`` or ``'auto'`` chooses. One
            that lacks the pass leaves it to another.

    Returns:
        The map, of the dtype of ``hidden``, and its sums of squares ``[B, K]``, float32 (float64
        for float64).

    Raises:
        TypeError: If an argument holds no such type.
        ValueError: If sizes or devices do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    _check_hidden(hidden)
    batch, units, _ = hidden.shape
    bias = _fitted('bias', bias, hidden, (units,), (batch, units))
    return _backend(backend, 'bias_gelu', hidden, bias).bias_gelu(hidden, bias)


def _check_hidden(hidden: Tensor) -> None:
    _check_tensor('hidden', hidden)
    if hidden.ndim != 3:
        raise ValueError(f'hidden must be [B, K, P], got {list(hidden.shape)}')


def _check_tensor(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f'{name} must be a Tensor, got {type(tensor).__name__}')
    check_dtype(name, tensor)


def _fitted(name: str, tensor: Tensor, hidden: Tensor, *shapes: tuple[int, ...]) -> Tensor:
    """What goes with a map, checked and in the type that is computed in."""
    _check_tensor(name, tensor)
    if tensor.device != hidden.device:
        raise ValueError(
            f'{name} is on {tensor.device}, the map on {hidden.device}; move one of them with .to()'
        )
    if not any(tensor.shape == shape for shape in shapes):
        expected = ' or '.join(str(list(shape)) for shape in shapes)
        raise ValueError(
            f'{name} must be {expected} for hidden {list(hidden.shape)}, got {list(tensor.shape)}'
        )
    return tensor.to(torch.float64 if hidden.dtype == torch.float64 else torch.float32)


def _backend(name: str | None, function: str, *tensors: Tensor) -> Backend:
    """Who runs a pass: ``torch`` wherever a gradient is wanted or a compiler traces."""
    hidden = tensors[0]
    name = choose_backend(name, Call(function, hidden.device, hidden.dtype))
    graded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return torch_backend if graded or torch.compiler.is_compiling() else backend_module(name)
