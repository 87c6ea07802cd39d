"""The depthwise operators as ``torch.library`` sees them, with derivatives of any order.

The convolution is linear in the map and in the kernel. So the gradient of every gradient is one of
the same three operators again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .backends import backend_module
from .library import define

_END = 'int small_kernel, str backend) -> Tensor'


def _without_autocast(tensor: Tensor) -> torch.autocast:
    """The callers have cast already; a backend chooses its own compute type."""
    return torch.autocast(tensor.device.type, enabled=False)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, side: int, backend: str) -> Tensor:
    with _without_autocast(x):
        return backend_module(backend).depthwise_conv2d(x, weight, bias, side)


def _grad_input(grad: Tensor, weight: Tensor, side: int, backend: str) -> Tensor:
    with _without_autocast(grad):
        return backend_module(backend).depthwise_conv2d_grad_input(grad, weight, side)


def _grad_weight(
    grad: Tensor, x: Tensor, height: int, width: int, side: int, backend: str
) -> Tensor:
    with _without_autocast(grad):
        run = backend_module(backend).depthwise_conv2d_grad_weight
        return run(grad, x, (height, width), side)


def _like_map(like: Tensor, *rest: Any) -> Tensor:
    return like.new_empty(like.shape)


def _kernel(grad: Tensor, x: Tensor, height: int, width: int, side: int, backend: str) -> Tensor:
    return x.new_empty(x.shape[1], 1, height, width)


depthwise_conv2d_op = define(
    'depthwise_conv2d', f'(Tensor x, Tensor weight, Tensor? bias, {_END}', _forward, _like_map
)
grad_input_op = define(
    'depthwise_conv2d_grad_input', f'(Tensor grad, Tensor weight, {_END}', _grad_input, _like_map
)
grad_weight_op = define(
    'depthwise_conv2d_grad_weight',
    f'(Tensor grad, Tensor x, SymInt height, SymInt width, {_END}',
    _grad_weight,
    _kernel,
)


def run(x: Tensor, weight: Tensor, bias: Tensor | None, side: int, backend: str) -> Tensor:
    """The convolution on a backend that can run it.

    The operators of ``cuda`` bring the same derivatives in C++, which take less time to call.
    """
    if backend == 'cuda':
        return backend_module(backend).depthwise_conv2d(x, weight, bias, side)
    return depthwise_conv2d_op(x, weight, bias, side, backend)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    """Keep the map and the kernel of the forward call, or what stands in their place."""
    ctx.rest = inputs[-2:]  # side and backend
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, grad: Tensor) -> tuple:
    x, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        grad_input_op(grad, weight, *ctx.rest) if wanted[0] else None,
        grad_weight_op(grad, x, *weight.shape[2:], *ctx.rest) if wanted[1] else None,
        grad.sum((0, 2, 3)) if wanted[2] else None,
        None,
        None,
    )


def _grad_input_backward(ctx: Any, grad_x: Tensor) -> tuple:
    grad, weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        depthwise_conv2d_op(grad_x, weight, None, *ctx.rest) if wanted[0] else None,
        grad_weight_op(grad, grad_x, *weight.shape[2:], *ctx.rest) if wanted[1] else None,
        None,
        None,
    )


def _grad_weight_backward(ctx: Any, grad_weight: Tensor) -> tuple:
    grad, x = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return (
        depthwise_conv2d_op(x, grad_weight, None, *ctx.rest) if wanted[0] else None,
        grad_input_op(grad, grad_weight, *ctx.rest) if wanted[1] else None,
        None,
        None,
        None,
        None,
    )


for _op, _rule in (
    (depthwise_conv2d_op, _backward),
    (grad_input_op, _grad_input_backward),
    (grad_weight_op, _grad_weight_backward),
):
    _op.register_autograd(_rule, setup_context=_save)
