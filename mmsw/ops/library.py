"""The operators as ``torch.library`` sees them: schemas, fake kernels, autograd of any order.

``shift_add`` is linear and ``shift_wise_conv2d`` is linear in the map and in the weight. So the
gradient of every gradient is one of the same operators again, and the set below is closed under
differentiation. The name of the backend is an argument of the operator: an implementation adds rows
to the backend table, never a schema.
"""

# No `from __future__ import annotations` here: torch 2.4 reads the schemas off the annotations.
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .backends import backend_module, torch_backend
from .pattern import conv_margin, num_groups

Outputs = tuple[Tensor, Tensor, Tensor]


def _without_autocast(device_type: str) -> torch.autocast:
    """The callers have cast already; a backend chooses its own compute type."""
    return torch.autocast(device_type, enabled=False)


def _operator(name: str) -> Callable[[Callable], Any]:
    """As ``torch.library.custom_op``, but a module that is run again gets the operator of before.

    A second definition would take the first one from under the layers that hold it.
    """
    defined = vars(torch.ops.mmsw).setdefault('_defined', {})  # lives as long as the operators

    def define(function: Callable) -> Any:
        key = name, str(inspect.signature(function))
        if key not in defined:
            defined[key] = torch.library.custom_op(name, function, mutates_args=())
        return defined[key]

    return define


@_operator('mmsw::shift_add')
def shift_add_op(
    conv_out: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Outputs:
    with _without_autocast(conv_out.device.type):
        return backend_module(backend).shift_add(
            conv_out, shift_hv, identity_index, big_kernel, small_kernel
        )


@shift_add_op.register_fake
def _(
    conv_out: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Outputs:
    batch, _, height, width = conv_out.shape
    border = 2 * conv_margin(small_kernel)
    shape = (batch, identity_index.shape[0], height - border, width - border)
    return conv_out.new_empty(shape), conv_out.new_empty(shape), conv_out.new_empty(shape)


@_operator('mmsw::shift_add_grad')
def shift_add_grad_op(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Tensor:
    with _without_autocast(grad_h.device.type):
        return backend_module(backend).shift_add_grad(
            grad_h, grad_v, grad_i, shift_hv, identity_index, big_kernel, small_kernel
        )


@shift_add_grad_op.register_fake
def _(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Tensor:
    batch, channels, height, width = grad_h.shape
    border = 2 * conv_margin(small_kernel)
    groups = num_groups(big_kernel, small_kernel)
    return grad_h.new_empty(batch, channels * groups, height + border, width + border)


def _save_pattern(ctx: Any, inputs: tuple, output: Any) -> None:
    *tensors, ctx.big_kernel, ctx.small_kernel, ctx.backend = inputs
    ctx.save_for_backward(*tensors[-2:])


def _shift_add_backward(ctx: Any, *grads: Tensor) -> tuple:
    pattern = (*ctx.saved_tensors, ctx.big_kernel, ctx.small_kernel, ctx.backend)
    return (shift_add_grad_op(*grads, *pattern), *[None] * 5)


def _shift_add_double_backward(ctx: Any, grad: Tensor) -> tuple:
    pattern = (*ctx.saved_tensors, ctx.big_kernel, ctx.small_kernel, ctx.backend)
    return (*shift_add_op(grad, *pattern), *[None] * 5)


shift_add_op.register_autograd(_shift_add_backward, setup_context=_save_pattern)
shift_add_grad_op.register_autograd(_shift_add_double_backward, setup_context=_save_pattern)


@_operator('mmsw::shift_wise_conv2d')
def shift_wise_conv2d_op(
    x: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Outputs:
    with _without_autocast(x.device.type):
        return backend_module(backend).shift_wise_conv2d(
            x, weight, shift_hv, identity_index, big_kernel, small_kernel
        )


@shift_wise_conv2d_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Outputs:
    return x.new_empty(x.shape), x.new_empty(x.shape), x.new_empty(x.shape)


@_operator('mmsw::shift_wise_conv2d_grad_input')
def grad_input_op(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Tensor:
    with _without_autocast(grad_h.device.type):
        return backend_module(backend).shift_wise_conv2d_grad_input(
            grad_h, grad_v, grad_i, weight, shift_hv, identity_index, big_kernel, small_kernel
        )


@grad_input_op.register_fake
def _(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Tensor:
    return grad_h.new_empty(grad_h.shape)


@_operator('mmsw::shift_wise_conv2d_grad_weight')
def grad_weight_op(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    x: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Tensor:
    with _without_autocast(x.device.type):
        return backend_module(backend).shift_wise_conv2d_grad_weight(
            grad_h, grad_v, grad_i, x, shift_hv, identity_index, big_kernel, small_kernel
        )


@grad_weight_op.register_fake
def _(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    x: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    backend: str,
) -> Tensor:
    groups = num_groups(big_kernel, small_kernel)
    return x.new_empty(x.shape[1] * groups, 1, small_kernel, small_kernel)


def _save_tensors(ctx: Any, inputs: tuple, output: Any) -> None:
    *tensors, ctx.big_kernel, ctx.small_kernel, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _conv_backward(ctx: Any, *grads: Tensor) -> tuple:
    x, weight, *pattern = ctx.saved_tensors
    pattern += [ctx.big_kernel, ctx.small_kernel, ctx.backend]
    grad_x = grad_input_op(*grads, weight, *pattern) if ctx.needs_input_grad[0] else None
    grad_weight = grad_weight_op(*grads, x, *pattern) if ctx.needs_input_grad[1] else None
    return (grad_x, grad_weight, *[None] * 5)


def _grad_input_backward(ctx: Any, grad: Tensor) -> tuple:
    *grads, weight, shift_hv, identity_index = ctx.saved_tensors
    pattern = (shift_hv, identity_index, ctx.big_kernel, ctx.small_kernel, ctx.backend)
    grad_grads, grad_weight = (None, None, None), None
    if any(ctx.needs_input_grad[:3]):
        grad_grads = shift_wise_conv2d_op(grad, weight, *pattern)
    if ctx.needs_input_grad[3]:
        grad_weight = grad_weight_op(*grads, grad, *pattern)
    return (*grad_grads, grad_weight, *[None] * 5)


def _grad_weight_backward(ctx: Any, grad: Tensor) -> tuple:
    *grads, x, shift_hv, identity_index = ctx.saved_tensors
    pattern = (shift_hv, identity_index, ctx.big_kernel, ctx.small_kernel, ctx.backend)
    grad_grads, grad_x = (None, None, None), None
    if any(ctx.needs_input_grad[:3]):
        grad_grads = shift_wise_conv2d_op(x, grad, *pattern)
    if ctx.needs_input_grad[3]:
        grad_x = grad_input_op(*grads, grad, *pattern)
    return (*grad_grads, grad_x, *[None] * 5)


shift_wise_conv2d_op.register_autograd(_conv_backward, setup_context=_save_tensors)
grad_input_op.register_autograd(_grad_input_backward, setup_context=_save_tensors)
grad_weight_op.register_autograd(_grad_weight_backward, setup_context=_save_tensors)


@_operator('mmsw::cross_conv2d')
def cross_conv2d_op(x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor, backend: str) -> Tensor:
    with _without_autocast(x.device.type):
        return backend_module(backend).cross_conv2d(x, wide, tall, bias)


@cross_conv2d_op.register_fake
def _(x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor, backend: str) -> Tensor:
    return x.new_empty(x.shape)


def _save_cross(ctx: Any, inputs: tuple, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])


def _cross_backward(ctx: Any, grad: Tensor) -> tuple:
    """The folded form is for inference: its gradients are those of the plain operators."""
    needed = ctx.needs_input_grad[:4]
    with torch.enable_grad(), _without_autocast(grad.device.type):
        leaves = [
            tensor.detach().requires_grad_(wanted)
            for tensor, wanted in zip(ctx.saved_tensors, needed, strict=True)
        ]
        out = torch_backend.cross_conv2d(*leaves)
        grads = iter(torch.autograd.grad(out, [t for t in leaves if t.requires_grad], grad))
    return (*(next(grads) if wanted else None for wanted in needed), None)


cross_conv2d_op.register_autograd(_cross_backward, setup_context=_save_cross)
