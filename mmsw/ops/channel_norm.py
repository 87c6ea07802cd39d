"""Layer norm over the channels of a map as it lies in memory, with a gradient of its own.

Maps are channel-major, ``[B, C, P]``: C channels at P positions. On the CPU the compiled library
reads a map once and writes it once (``csrc/cpu/channel_norm.cpp``), and passes back in the same
way. Everywhere else, and where a program is traced or differentiated twice, this is the layer norm
of PyTorch between two transpositions. Compiled, half precision is computed in float32 and rounded
once.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .backends import (
    backend_module,
    choose_backend,
    needs_plain_operators,
    torch_backend,
)
from .backends.backend import Backend
from .backends.call import Call
from .functional import check_dtype
from .plain_grads import needs_plain_grads, plain_grads


def channel_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
    keep: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Layer norm over the channels at every position of a map.

    Args:
        x: ``[B, C, P]``, float32, float64, float16 or bfloat16, any strides.
        weight: ``[C]``, or ``None`` for ones.
        bias: ``[C]``, or ``None`` for zeros.
        eps: Added to the variance.
        keep: Whether ``x`` has to stay as it is. Otherwise it may be overwritten where no gradient
            is wanted.
        backend: As in :func:`mmsw.ops.bias_gelu`.

    Returns:
        ``[B, C, P]``, contiguous, of the dtype of ``x``; float32 inside ``torch.autocast`` on a
        GPU.

    Raises:
        TypeError: If an argument holds no such type.
        ValueError: If sizes or devices do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    if not torch.jit.is_tracing():  # sizes are no numbers there
        _check(x, weight, bias)
    run = _backend(x, backend)
    if run is torch_backend:
        return torch_backend.channel_norm(x, weight, bias, eps)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight, bias = (None if tensor is None else tensor.to(wide) for tensor in (weight, bias))
    tensors = x, weight, bias
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _ChannelNorm.apply(*tensors, eps, run)
    return run.channel_norm(*tensors, eps, keep)


def _check(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    for name, tensor in (('x', x), ('weight', weight), ('bias', bias)):
        if tensor is None:
            continue
        check_dtype(name, tensor)
        if tensor.device != x.device:
            raise ValueError(
                f'{name} is on {tensor.device}, the map on {x.device}; move one of them with .to()'
            )
        if name != 'x' and tensor.shape != x.shape[1:2]:
            raise ValueError(
                f'{name} must be {list(x.shape[1:2])} for x {list(x.shape)}, got '
                f'{list(tensor.shape)}'
            )
        if name == 'x' and x.ndim != 3:
            raise ValueError(f'x must be [B, C, P], got {list(x.shape)}')


def _backend(x: Tensor, name: str | None) -> Backend:
    if x.device.type == 'meta' or torch.compiler.is_compiling() or needs_plain_operators(None):
        return torch_backend
    return backend_module(choose_backend(name, Call('channel_norm', x.device, x.dtype)))


class _ChannelNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        backend: Backend,
    ) -> Tensor:
        out, mean, rstd = backend.channel_norm_statistics(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.eps, ctx.backend = eps, backend
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        if needs_plain_grads(grad):
            form = functools.partial(_definition, ctx.eps)
            wanted = ctx.needs_input_grad[:3]
            return (*plain_grads(form, ctx.saved_tensors[:3], wanted, grad), None, None)
        x, weight, _, mean, rstd = ctx.saved_tensors
        grads = ctx.backend.channel_norm_grad(grad, x, weight, mean, rstd)
        wanted = ctx.needs_input_grad
        return (*(found if wanted[i] else None for i, found in enumerate(grads)), None, None)


def _definition(eps: float, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The norm written out: the third derivative of torch's own layer norm is wrong."""
    centred = x.to(torch.promote_types(x.dtype, torch.float32))
    centred = centred - centred.mean(1, keepdim=True)
    out = centred * (centred.square().mean(1, keepdim=True) + eps).rsqrt()
    out = out if weight is None else out * weight.unsqueeze(1)
    return (out if bias is None else out + bias.unsqueeze(1)).to(x.dtype)
