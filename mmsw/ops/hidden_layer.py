"""Two linear layers with GELU and a response norm between them, with a gradient of their own.

Maps are channel-major, ``[B, C, P]``. The response norm (GRN) scales each hidden unit of a sample
by one number, so it enters the second weight where that is smaller than the map, and its gradient
follows from that of the weight. Then the map of hidden units is passed over once forward and once
backward, besides the products.

With ``y = gelu(weight1 @ x + bias1)``, ``n`` the L2 norms of the rows of ``y`` and
``f = gamma * n / (mean(n) + eps) + 1``, the layer is
``weight2 @ (f * y + beta) + bias2 = (weight2 * f) @ y + (weight2 @ beta + bias2)``.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import (
    backend_module,
    check_backend,
    choose_backend,
    needs_plain_operators,
)
from .backends.backend import Backend
from .backends.call import Call
from .joined_samples import by_row, join, map_of, rows_by_sample, samples_together, separate
from .plain_grads import needs_plain_grads, plain_grads

_PARTS = 8  # of a map that are multiplied one after the other, so that no third one is in memory


class Response(NamedTuple):
    """Parameters of a global response norm.

    Attributes:
        gamma: ``[K]``.
        beta: ``[K]``.
        eps: Added to the mean response.
    """

    gamma: Tensor
    beta: Tensor
    eps: float = 1e-6


def hidden_layer(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor | None = None,
    response: Response | None = None,
    recompute: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Linear layer, GELU, response norm, linear layer, at every position of a map.

    The same as the four of PyTorch, to rounding; differentiable to any order. Inside
    ``torch.autocast`` the products are in its dtype and the norms in float32.

    Args:
        x: ``[B, C, P]``, any strides.
        weight1: ``[K, C]``.
        bias1: ``[K]``.
        weight2: ``[D, K]``.
        bias2: ``[D]`` or ``None``.
        response: The response norm, or ``None`` for none.
        recompute: Compute GELU again in the backward pass: one map of ``[B, K, P]`` less is kept.
        backend: A name of :func:`~mmsw.ops.available_backends`, which runs the passes over the map
            of hidden units; ``None`` or ``'auto'`` chooses. One that lacks them leaves them to
            another.

    Returns:
        ``[B, D, P]``.

    Raises:
        ValueError: If sizes do not fit together, or the backend is unknown.
        BackendUnavailableError: If the named backend cannot run.
    """
    check_backend(backend)
    _check(x, weight1, bias1, weight2, bias2, response)
    dtype = x.dtype
    device_type = x.device.type
    if device_type != 'meta' and torch.is_autocast_enabled(device_type):
        dtype = x.dtype if x.dtype == torch.float64 else torch.get_autocast_dtype(device_type)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    gamma, beta, eps = response if response is not None else (None, None, 0.0)
    vectors = [None if v is None else v.to(wide) for v in (bias1, bias2, gamma, beta)]
    tensors = [x.to(dtype), weight1.to(dtype), weight2.to(dtype), *vectors]
    if device_type == 'meta' or torch.compiler.is_compiling() or needs_plain_operators(None):
        return _plain(*tensors, eps)
    with torch.autocast(device_type, enabled=False):  # the casts are done
        return _HiddenLayer.apply(*tensors, eps, recompute, backend)


def _check(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor | None,
    response: Response | None,
) -> None:
    if x.ndim != 3 or weight1.ndim != 2 or weight2.ndim != 2:
        raise ValueError(
            'x must be [B, C, P], weight1 [K, C] and weight2 [D, K], got '
            f'{list(x.shape)}, {list(weight1.shape)} and {list(weight2.shape)}'
        )
    units, outputs = weight1.shape[0], weight2.shape[0]
    expected = {'weight1': (weight1, (units, x.shape[1])), 'weight2': (weight2, (outputs, units))}
    expected |= {'bias1': (bias1, (units,)), 'bias2': (bias2, (outputs,))}
    if response is not None:
        expected |= {'gamma': (response.gamma, (units,)), 'beta': (response.beta, (units,))}
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f'{name} must be {list(shape)}, got {list(tensor.shape)}')


def _plain(
    x: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    bias1: Tensor,
    bias2: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
) -> Tensor:
    """The definition, in operators that tracers and differentiation of any order know."""
    hidden = F.gelu((weight1 @ x).to(bias1.dtype) + bias1.unsqueeze(-1))
    if gamma is not None:
        norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        response = norm / (norm.mean(dim=1, keepdim=True) + eps)
        hidden = hidden * (gamma.unsqueeze(-1) * response + 1) + beta.unsqueeze(-1)
    out = weight2 @ hidden.to(x.dtype)
    return out if bias2 is None else (out + bias2.unsqueeze(-1)).to(x.dtype)


class _Responses(NamedTuple):
    """What the response norm makes of the norms of a map: ``[G, K, S]``, see :func:`join`."""

    norm: Tensor
    mean: Tensor  # [G, 1, S], eps added
    factor: Tensor

    @classmethod
    def of(cls, norm: Tensor, gamma: Tensor, eps: float) -> _Responses:
        mean = norm.mean(dim=1, keepdim=True) + eps
        return cls(norm, mean, gamma.unsqueeze(1) * (norm / mean) + 1)

    def grads(self, grad_factor: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of ``gamma``, and the gradient of the map over the map."""
        grad_gamma = (grad_factor * (self.norm / self.mean)).sum((0, 2))
        grad = grad_factor * gamma.unsqueeze(1) / self.mean
        mean_grad = (grad * self.norm).sum(1, keepdim=True) / (self.mean * self.norm.shape[1])
        by_norm = (grad - mean_grad) / self.norm
        return grad_gamma, torch.where(self.norm > 0, by_norm, 0.0)


class _HiddenLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, eps, recompute, backend = arguments
        x, weight1, weight2, bias1, bias2, gamma, beta = tensors
        # Maps are joined from here on, [G, K, S * P]; with a norm each sample has rows of its own.
        together = samples_together(x)
        ctx.eps, ctx.together, ctx.rows = eps, together, 1 if gamma is None else together
        ctx.backend = _backend(backend, x)
        needs_grad = any(ctx.needs_input_grad)
        x = join(x, together)
        hidden = torch.bmm(_every_sample(weight1, x), x)
        mapped, squares = _bias_gelu(ctx, hidden, bias1, keep=needs_grad)
        norm, bias = None, bias2
        scaled = mapped
        if gamma is not None:
            norm = squares.sqrt()
            factor = _Responses.of(norm, gamma, eps).factor
            shift = weight2.to(beta.dtype) @ beta
            bias = shift if bias2 is None else shift + bias2
            if _scales_weight(weight2, x, together):
                weight2 = (weight2 * factor.mT).to(x.dtype)
            else:
                scaled = _times(mapped, factor).to(x.dtype)
        if needs_grad:
            ctx.save_for_backward(*tensors, hidden, None if recompute else mapped, norm)
        weight2 = _every_sample(weight2, x)
        if bias is None:
            return separate(torch.bmm(weight2, scaled), together)
        out = torch.baddbmm(bias.to(x.dtype).unsqueeze(-1), weight2, scaled)
        return separate(out, together)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        with torch.autocast(grad.device.type, enabled=False):
            if not needs_plain_grads(grad):
                return (*_grads(ctx, grad), None, None, None)
            form = functools.partial(_plain, eps=ctx.eps)
            tensors, wanted = ctx.saved_tensors[:7], ctx.needs_input_grad[:7]
            return (*plain_grads(form, tensors, wanted, grad), None, None, None)


def _grads(ctx: Any, grad: Tensor) -> list[Tensor | None]:
    """Gradients of the tensors."""
    x, weight1, weight2, bias1, _, gamma, beta, hidden, mapped, norm = ctx.saved_tensors
    x, grad = join(x, ctx.together), join(grad, ctx.together).contiguous()
    if mapped is None:
        mapped = _bias_gelu(ctx, hidden, bias1, keep=True)[0]
    grad_bias2 = grad.sum((0, 2), dtype=bias1.dtype)
    grad_gamma = grad_beta = None
    if gamma is None:
        grad_weight2 = _weight_grad(grad, mapped)
        grad_hidden = torch.bmm(_every_sample(weight2.mT, x), grad)
        by_map = hidden.new_zeros(hidden.shape[:2], dtype=bias1.dtype)
    else:
        responses = _Responses.of(norm, gamma, ctx.eps)
        scales_weight = _scales_weight(weight2, x, ctx.together)
        through = _through_weight if scales_weight else _through_map
        grad_hidden, grad_weight2, grad_factor = through(grad, mapped, weight2, responses.factor)
        grad_gamma, by_map = responses.grads(grad_factor, gamma)
        grad_beta = grad_bias2 @ weight2.to(beta.dtype)
        grad_weight2 = grad_weight2.to(beta.dtype).addr_(grad_bias2, beta).to(x.dtype)
    del mapped
    grad_hidden, grad_bias1 = _gelu_grad(ctx, grad_hidden, hidden, bias1, by_map)
    wants_x, wants_weight1 = ctx.needs_input_grad[:2]
    grad_x = torch.bmm(_every_sample(weight1.mT, x), grad_hidden) if wants_x else None
    grad_weight1 = _weight_grad(grad_hidden, x) if wants_weight1 else None
    if wants_x:
        grad_x = separate(grad_x, ctx.together)
    grads = grad_x, grad_weight1, grad_weight2, grad_bias1, grad_bias2, grad_gamma, grad_beta
    wanted = ctx.needs_input_grad[: len(grads)]
    return [found if asked else None for found, asked in zip(grads, wanted, strict=True)]


def _backend(name: str | None, x: Tensor) -> Backend:
    """Who runs both passes over the hidden map."""
    return backend_module(choose_backend(name, Call('gelu_grad', x.device, x.dtype)))


def _bias_gelu(ctx: Any, hidden: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    """The map after GELU, and its sums of squares ``[G, K, S]``."""
    rows = rows_by_sample(hidden, ctx.rows), by_row(bias, ctx.rows)
    mapped, squares = ctx.backend.bias_gelu(*rows, keep=keep)
    return map_of(mapped, ctx.rows), squares.unflatten(1, (-1, ctx.rows))


def _gelu_grad(
    ctx: Any, grad: Tensor, hidden: Tensor, bias: Tensor, by_map: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient before GELU, and that of the bias."""
    rows = rows_by_sample(grad, ctx.rows), rows_by_sample(hidden, ctx.rows), by_row(bias, ctx.rows)
    found, sums = ctx.backend.gelu_grad(*rows, by_map.flatten(1))
    return map_of(found, ctx.rows), sums.sum(0).unflatten(0, (-1, ctx.rows)).sum(1)


def _every_sample(weight: Tensor, x: Tensor) -> Tensor:
    """A weight as ``torch.bmm`` wants it, which does not copy it."""
    return weight.expand(x.shape[0], *weight.shape[-2:])


def _by_sample(x: Tensor, factor: Tensor) -> Tensor:
    """A joined map as ``[G, K, S, P]``, for a factor ``[G, K, S]``."""
    return x.unflatten(2, (factor.shape[2], x.shape[2] // factor.shape[2]))


def _times(x: Tensor, factor: Tensor) -> Tensor:
    return (_by_sample(x, factor) * factor.unsqueeze(3)).flatten(2)


def _scales_weight(weight2: Tensor, x: Tensor, together: int) -> bool:
    """Whether a weight for each sample is smaller than the map of its hidden units."""
    return together == 1 and weight2.shape[0] <= x.shape[2]


def _through_weight(
    grad: Tensor, mapped: Tensor, weight2: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the map, of the weight and of the factor where the weight is scaled."""
    grad_scaled = torch.bmm(grad, mapped.mT).to(factor.dtype)
    grad_factor = (grad_scaled * weight2).sum(1).unsqueeze(2)
    grad_weight2 = grad_scaled.mul_(factor.mT).sum(0)
    del grad_scaled
    scaled = (weight2 * factor.mT).to(grad.dtype)
    return torch.bmm(scaled.mT, grad), grad_weight2, grad_factor


def _through_map(
    grad: Tensor, mapped: Tensor, weight2: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same where the map is scaled."""
    grad_weight2 = _weight_grad(grad, _times(mapped, factor).to(grad.dtype))
    grad_hidden = torch.bmm(_every_sample(weight2.mT, grad), grad)
    apart = _by_sample(grad_hidden, factor)
    parts = zip(apart.chunk(_PARTS, 1), _by_sample(mapped, factor).chunk(_PARTS, 1), strict=True)
    grad_factor = torch.cat([(a.to(factor.dtype) * b).sum(3) for a, b in parts], 1)
    apart.mul_(factor.unsqueeze(3))
    return grad_hidden, grad_weight2, grad_factor


def _weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """``sum over samples of grad @ x.T``."""
    if grad.is_cpu and grad.dtype in (torch.float32, torch.float64):
        total = grad.new_zeros(grad.shape[1], x.shape[1])
        for one, other in zip(grad, x, strict=True):
            total.addmm_(one, other.mT)
        return total
    if min(grad.shape[1], x.shape[1]) <= x.shape[2]:
        return torch.bmm(grad, x.mT).sum(0)
    return grad.transpose(0, 1).flatten(1) @ x.transpose(0, 1).flatten(1).mT
