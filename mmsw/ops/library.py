"""The operators as ``torch.library`` sees them: schemas, fake kernels, autograd of any order.

``shift_add`` is linear and ``shift_wise_conv2d`` is linear in the map and in the weight. So the
gradient of every gradient is one of the same operators again, and the set below is closed under
differentiation. The name of the backend is an argument of the operator: an implementation adds rows
to the backend table, never a schema.

Here alone a pattern is spread out into the arguments of an operator and put together again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .assemble import mask_filters
from .backends import backend_module, torch_backend
from .backends.backend import Backend, Outputs
from .pattern_tables import PatternTables

_PATTERN = 'Tensor shift_hv, Tensor identity_index, int big_kernel, int small_kernel'
_GRADS = 'Tensor grad_h, Tensor grad_v, Tensor grad_i'
_OUTPUTS = '(Tensor, Tensor, Tensor)'

# Backends that bring checked operators with autograd of their own, and their namespaces.
_OWN_OPERATORS = {'cpp': 'mmsw_cpp', 'cuda': 'mmsw_cuda'}

_ByBackend = Callable[..., Any]  # (backend, pattern, *tensors)
_Fake = Callable[..., Any]  # (pattern, *tensors)


def run(backend: str, function: str, *arguments: Tensor | int | None) -> Any:
    """Run an operator on a backend.

    Args:
        backend: Name of a backend that can run this call.
        function: Name of the operator.
        arguments: Its tensors, then (but for ``cross_conv2d``) the four parts of a
            :class:`PatternTables`.
    """
    if backend in _OWN_OPERATORS:
        return getattr(getattr(torch.ops, _OWN_OPERATORS[backend]), function)(*arguments)
    return OPERATORS[function](*arguments, backend)


def _operator(name: str, tensors: str, returns: str, by_backend: _ByBackend, fake: _Fake) -> Any:
    """An operator on a pattern (or, ``cross_conv2d``, without one); see :func:`define`."""
    pattern = '' if name == 'cross_conv2d' else f', {_PATTERN}'
    schema = f'({tensors}{pattern}, str backend) -> {returns}'

    def implementation(*arguments: Any) -> Any:
        inputs, tables, backend = _sort(arguments)
        # The callers have cast already; a backend chooses its own compute type.
        with torch.autocast(inputs[0].device.type, enabled=False):
            return by_backend(backend_module(backend), tables, *inputs)

    def shapes(*arguments: Any) -> Any:
        inputs, tables, _ = _sort(arguments)
        return fake(tables, *inputs)

    return define(name, schema, implementation, shapes)


def define(name: str, schema: str, implementation: _ByBackend, shapes: _Fake) -> Any:
    """An operator ``mmsw::NAME``, as ``torch.library.custom_op`` makes it, with its fake kernel.

    A module that is run again gets the operator of before: a second definition would take the first
    one from under the layers that hold it.

    Args:
        name: Name without the namespace.
        schema: Arguments, the first one a map and the last one the backend, and results.
        implementation: Takes the arguments.
        shapes: Takes them as well, and returns empty results.
    """
    defined = vars(torch.ops.mmsw).setdefault('_defined', {})  # lives as long as the operators
    key = name, schema
    names = [part.split()[1] for part in schema.partition(')')[0].split(', ')]

    def checked_shapes(*arguments: Any) -> Any:
        _check_devices(names, arguments)
        return shapes(*arguments)

    if key not in defined:
        defined[key] = torch.library.custom_op(
            f'mmsw::{name}', implementation, mutates_args=(), schema=schema
        )
        defined[key].register_fake(checked_shapes)
        for namespace in _OWN_OPERATORS.values():
            if hasattr(getattr(torch.ops, namespace), name):  # its library is loaded
                torch.library.register_fake(
                    f'{namespace}::{name}', lambda *arguments: checked_shapes(*arguments, '')
                )
    return defined[key]


def _check_devices(names: list[str], arguments: tuple) -> None:
    """Torch asks for shapes only as soon as one tensor is on the meta device; all must be then."""
    device = arguments[0].device
    for name, value in zip(names, arguments, strict=False):
        if isinstance(value, Tensor) and value.device != device:
            raise ValueError(
                f'{name} is on {value.device}, the map on {device}; move one of them with .to()'
            )


def _sort(arguments: tuple) -> tuple[list[Tensor | None], PatternTables | None, str]:
    """Arguments of an operator as tensors, pattern and name of the backend."""
    *rest, backend = arguments
    if isinstance(rest[-1], int):
        return rest[:-4], PatternTables(*rest[-4:]), backend
    return rest, None, backend


def _save(ctx: Any, inputs: tuple, output: Any) -> None:
    """Keep every argument for the backward pass."""
    tensors, pattern, ctx.backend = _sort(inputs)
    ctx.count = len(inputs)
    ctx.sizes = () if pattern is None else pattern[2:]
    ctx.save_for_backward(*tensors, *(() if pattern is None else pattern[:2]))


def _saved(ctx: Any) -> tuple[list[Tensor | None], tuple]:
    """The tensors of the forward call, and what follows them in the call of another operator."""
    *tensors, shift_hv, identity_index = ctx.saved_tensors
    return tensors, (shift_hv, identity_index, *ctx.sizes, ctx.backend)


def _all_inputs(ctx: Any, *grads: Tensor | None) -> tuple:
    """Gradients of the first arguments, and ``None`` for the others."""
    return (*grads, *[None] * (ctx.count - len(grads)))


def _three_maps(tables: PatternTables, like: Tensor, *tensors: Tensor | None) -> Outputs:
    return like.new_empty(like.shape), like.new_empty(like.shape), like.new_empty(like.shape)


def _one_map(tables: PatternTables | None, like: Tensor, *tensors: Tensor | None) -> Tensor:
    return like.new_empty(like.shape)


def _added(tables: PatternTables, conv_out: Tensor) -> Outputs:
    batch, _, height, width = conv_out.shape
    border = 2 * tables.margin
    shape = (batch, tables.channels, height - border, width - border)
    return conv_out.new_empty(shape), conv_out.new_empty(shape), conv_out.new_empty(shape)


def _conv_output(tables: PatternTables, grad_h: Tensor, *grads: Tensor) -> Tensor:
    batch, channels, height, width = grad_h.shape
    border = 2 * tables.margin
    filters = channels * tables.num_groups
    return grad_h.new_empty(batch, filters, height + border, width + border)


def _small_kernels(
    tables: PatternTables, h: Tensor, v: Tensor, i: Tensor, x: Tensor, mask: Tensor | None
) -> Tensor:
    side = tables.small_kernel
    return x.new_empty(x.shape[1] * tables.num_groups, 1, side, side)


def _shift_add(backend: Backend, tables: PatternTables, conv_out: Tensor) -> Outputs:
    return backend.shift_add(conv_out, tables)


def _shift_add_grad(backend: Backend, tables: PatternTables, *grads: Tensor) -> Tensor:
    return backend.shift_add_grad(grads, tables)


def _conv(
    backend: Backend, tables: PatternTables, x: Tensor, weight: Tensor, mask: Tensor | None
) -> Outputs:
    return backend.shift_wise_conv2d(x, weight, tables)


def _grad_input(backend: Backend, tables: PatternTables, *tensors: Tensor | None) -> Tensor:
    *grads, weight, _ = tensors
    return backend.shift_wise_conv2d_grad_input(tuple(grads), weight, tables)


def _grad_weight(backend: Backend, tables: PatternTables, *tensors: Tensor | None) -> Tensor:
    *grads, x, mask = tensors
    return backend.shift_wise_conv2d_grad_weight(tuple(grads), x, tables, mask)


def _cross(backend: Backend, tables: None, *tensors: Tensor | None) -> Tensor:
    return backend.cross_conv2d(*tensors)


# The mask of an operator says which small kernels get a gradient, in whatever order.
shift_add_op = _operator('shift_add', 'Tensor conv_out', _OUTPUTS, _shift_add, _added)
shift_add_grad_op = _operator('shift_add_grad', _GRADS, 'Tensor', _shift_add_grad, _conv_output)
shift_wise_conv2d_op = _operator(
    'shift_wise_conv2d', 'Tensor x, Tensor weight, Tensor? mask', _OUTPUTS, _conv, _three_maps
)
grad_input_op = _operator(
    'shift_wise_conv2d_grad_input',
    f'{_GRADS}, Tensor weight, Tensor? mask',
    'Tensor',
    _grad_input,
    _one_map,
)
grad_weight_op = _operator(
    'shift_wise_conv2d_grad_weight',
    f'{_GRADS}, Tensor x, Tensor? mask',
    'Tensor',
    _grad_weight,
    _small_kernels,
)
cross_conv2d_op = _operator(
    'cross_conv2d', 'Tensor x, Tensor wide, Tensor tall, Tensor? bias', 'Tensor', _cross, _one_map
)
OPERATORS = {
    'shift_add': shift_add_op,
    'shift_wise_conv2d': shift_wise_conv2d_op,
    'cross_conv2d': cross_conv2d_op,
}


def _shift_add_backward(ctx: Any, *grads: Tensor) -> tuple:
    _, rest = _saved(ctx)
    return _all_inputs(ctx, shift_add_grad_op(*grads, *rest))


def _shift_add_grad_backward(ctx: Any, grad: Tensor) -> tuple:
    _, rest = _saved(ctx)
    return _all_inputs(ctx, *shift_add_op(grad, *rest))


def _conv_backward(ctx: Any, *grads: Tensor) -> tuple:
    (x, weight, mask), rest = _saved(ctx)
    grad_x = grad_weight = None
    if ctx.needs_input_grad[0]:
        grad_x = grad_input_op(*grads, weight, mask, *rest)
    if ctx.needs_input_grad[1]:
        grad_weight = grad_weight_op(*grads, x, mask, *rest)
    return _all_inputs(ctx, grad_x, grad_weight)


def _grad_input_backward(ctx: Any, grad: Tensor) -> tuple:
    (*grads, weight, mask), rest = _saved(ctx)
    grad_grads, grad_weight = (None, None, None), None
    if any(ctx.needs_input_grad[:3]):
        grad_grads = shift_wise_conv2d_op(grad, weight, mask, *rest)
    if ctx.needs_input_grad[3]:
        grad_weight = grad_weight_op(*grads, grad, mask, *rest)
    return _all_inputs(ctx, *grad_grads, grad_weight)


def _grad_weight_backward(ctx: Any, grad: Tensor) -> tuple:
    (*grads, x, mask), rest = _saved(ctx)
    grad = mask_filters(grad, mask)
    grad_grads, grad_x = (None, None, None), None
    if any(ctx.needs_input_grad[:3]):
        grad_grads = shift_wise_conv2d_op(x, grad, mask, *rest)
    if ctx.needs_input_grad[3]:
        grad_x = grad_input_op(*grads, grad, mask, *rest)
    return _all_inputs(ctx, *grad_grads, grad_x)


def _cross_backward(ctx: Any, grad: Tensor) -> tuple:
    """The folded form is for inference: its gradients are those of the plain operators."""
    needed = ctx.needs_input_grad[:4]
    with torch.enable_grad(), torch.autocast(grad.device.type, enabled=False):
        leaves = [
            tensor.detach().requires_grad_(wanted) if tensor is not None else None
            for tensor, wanted in zip(ctx.saved_tensors, needed, strict=True)
        ]
        out = torch_backend.cross_conv2d(*leaves)
        wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        grads = iter(torch.autograd.grad(out, wanted, grad))
    return _all_inputs(ctx, *(next(grads) if wanted else None for wanted in needed))


for _op, _backward in (
    (shift_add_op, _shift_add_backward),
    (shift_add_grad_op, _shift_add_grad_backward),
    (shift_wise_conv2d_op, _conv_backward),
    (grad_input_op, _grad_input_backward),
    (grad_weight_op, _grad_weight_backward),
    (cross_conv2d_op, _cross_backward),
):
    _op.register_autograd(_backward, setup_context=_save)
