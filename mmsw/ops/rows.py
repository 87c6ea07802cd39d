"""Weighted sums of maps, with the moments that batch norms take their weights from.

A row is one channel of one sample: a map ``[B, C, P]`` has ``B * C`` of ``P`` positions. Batch
norms, layer scale, channel attention and stochastic depth give all positions of a row one factor.
So a chain of them over some maps, sums included, is one weighted sum of these maps for each row.
Its weights follow from the means and covariances of the rows, which are small tensors. Then the
maps are read twice forward (moments, sum) and twice backward, however long the chain is::

    rows = rows_of(h, v, i)
    scales, mean = ...  # any differentiable function of rows.mean and rows.covariance
    out = rows.combine(scales, mean)

A map may have fewer channels than the first one. It takes no part in the rows beyond them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import backend_module, choose_backend, torch_backend
from .backends.backend import Backend
from .backends.call import Call
from .plain_grads import needs_plain_grads


def runs_rows(x: Tensor, backend: str | None = None) -> bool:
    """Whether a compiled library runs the passes of this file; elsewhere they gain nothing."""
    return _backend(x, backend) is not torch_backend


class Rows(NamedTuple):
    """Maps and the moments of their rows.

    Attributes:
        maps: Each ``[B, C', P]``, of one dtype, the first with the most channels C.
        mean: ``[n, B, C]``, float64, zero where a map has no row.
        covariance: ``[n, n, B, C]``, likewise: means over the positions of products of deviations
            from ``mean``.
        backend: Who runs the passes.
        carrier: Takes the gradient of the first sum to the moments: it has the shape of the sum.
        carried: The weights of that sum.
    """

    maps: tuple[Tensor, ...]
    mean: Tensor
    covariance: Tensor
    backend: str | None
    carrier: Tensor
    carried: list[Tensor]

    def combine(self, scales: Tensor, mean: Tensor, added: Tensor | None = None) -> Tensor:
        """``added + sum over maps of scales * (map - its mean) + mean``.

        Args:
            scales: ``[n, B, C]``, float64; what stands where a map has no row does not matter.
            mean: ``[B, C]``, float64: means of the rows of the result, without ``added``.
            added: ``[B, D, P]`` with at least C channels, or ``None``. Those beyond pass unchanged.

        Returns:
            ``[B, C, P]``, or ``[B, D, P]``, of the dtype of the maps.
        """
        # The gradient of one sum travels with that of the moments; other sums find their own.
        carrier = None if self.carried else self.carrier
        if carrier is not None:
            self.carried.append(scales.detach())
        own = carrier, self.backend, self.mean, scales, mean, added
        return _Combine.apply(*own, *self.maps)


def rows_of(*maps: Tensor, backend: str | None = None) -> Rows:
    """Moments of the rows of some maps.

    Args:
        maps: ``[B, C', P]`` with contiguous positions and any other strides, of one dtype.
        backend: See :func:`mmsw.ops.shift_wise_conv2d`.
    """
    carried: list[Tensor] = []
    mean, covariance, carrier = _Moments.apply(carried, backend, *maps)
    return Rows(maps, mean, covariance, backend, carrier, carried)


def add_scaled(added: Tensor, x: Tensor, scale: Tensor, backend: str | None = None) -> Tensor:
    """``added + scale * x`` with a factor for each row.

    Args:
        added: ``[B, C, P]``.
        x: The same.
        scale: ``[B, C]``, float64.
        backend: See :func:`mmsw.ops.shift_wise_conv2d`.
    """
    zero = torch.zeros_like(scale)
    mean = zero.detach().unsqueeze(0)
    return _Combine.apply(None, backend, mean, scale.unsqueeze(0), zero, added, x)


def _backend(x: Tensor, backend: str | None) -> Backend:
    return backend_module(choose_backend(backend, Call('row_sums', x.device, x.dtype)))


class _Moments(torch.autograd.Function):
    """Its backward pass also does the first sum's, so that all is one pass over the maps."""

    @staticmethod
    def forward(
        ctx: Any, carried: list[Tensor], backend: str | None, *maps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.carried, ctx.backend = carried, backend
        ctx.set_materialize_grads(False)
        mean, covariance = _backend(maps[0], backend).row_moments(maps)
        ctx.save_for_backward(mean, *maps)
        return mean, covariance, maps[0].new_zeros(()).expand(maps[0].shape)

    @staticmethod
    def backward(
        ctx: Any, grad_mean: Tensor | None, grad_covariance: Tensor | None, grad: Tensor | None
    ) -> tuple:
        mean, *maps = ctx.saved_tensors
        plain = needs_plain_grads(grad_mean, grad_covariance, grad)
        wanted = [i for i, asked in enumerate(ctx.needs_input_grad[2:]) if asked]
        channels = [maps[i].shape[1] for i in wanted]
        positions = maps[0].shape[2]
        zero = torch.zeros_like(mean)
        # The slope of an entry of the covariance is the other map, centred, over P.
        slopes = zero.unsqueeze(0).expand(len(maps), *mean.shape)
        if grad_covariance is not None:
            slopes = (grad_covariance + grad_covariance.transpose(0, 1)) / positions
        constant = zero if grad_mean is None else grad_mean / positions
        factors = [slopes, constant.unsqueeze(1)]
        if grad is not None:
            factors = [ctx.carried[0].unsqueeze(1), *factors]
            maps, mean = [grad, *maps], torch.cat([zero[:1], mean])
        factors = torch.cat(factors, 1)
        if len(wanted) < len(factors):
            factors = factors[wanted]
        run = torch_backend if plain else _backend(maps[0], ctx.backend)
        sums = run.row_sums(maps, mean, factors, channels)
        grads: list[Tensor | None] = [None] * (len(ctx.needs_input_grad) - 2)
        for i, found in zip(wanted, sums, strict=True):
            grads[i] = found
        return None, None, *grads


class _Combine(torch.autograd.Function):
    """Without a carrier, it finds all gradients of the maps by itself."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        carrier, backend, row_mean, scales, mean, added, *maps = arguments
        ctx.carries, ctx.backend = carrier is not None, backend
        # Without gradients for the weights, the maps are not needed plain.
        weighs = any(ctx.needs_input_grad[2:5])
        ctx.channels = [map_.shape[1] for map_ in maps]
        ctx.save_for_backward(row_mean, scales, *(maps if weighs else []))
        factors = torch.cat([scales, mean.unsqueeze(0)])
        if added is not None:
            beyond = 0, added.shape[1] - factors.shape[2]
            factors, row_mean = F.pad(factors, beyond), F.pad(row_mean, beyond)
            factors = torch.cat([torch.ones_like(factors[:1]), factors])
            row_mean = torch.cat([torch.zeros_like(row_mean[:1]), row_mean])
            maps = [added, *maps]
        run, channels = _backend(maps[0], backend), [maps[0].shape[1]]
        return run.row_sums(maps, row_mean, factors.unsqueeze(0), channels)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        row_mean, scales, *maps = ctx.saved_tensors
        plain = needs_plain_grads(grad)
        run = torch_backend if plain else _backend(grad, ctx.backend)
        grad = grad.contiguous()
        channels = ctx.channels[0]
        part = grad if grad.shape[1] == channels else grad.narrow(1, 0, channels)
        grad_row_mean = grad_scales = grad_mean = None
        if maps:
            sums = run.row_products(part, maps, row_mean)
            grad_scales, grad_mean = sums[:-1], sums[-1]
            grad_row_mean = -scales * grad_mean
        carries = ctx.carries and not plain
        grads: list[Tensor | None] = [None] * len(ctx.channels)
        wanted = [i for i, asked in enumerate(ctx.needs_input_grad[6:]) if asked]
        if wanted and not carries:
            factors = torch.stack([scales, torch.zeros_like(scales)], 1)[wanted]
            channels = [ctx.channels[i] for i in wanted]
            found = run.row_sums([part], torch.zeros_like(scales[:1]), factors, channels)
            for i, own in zip(wanted, found, strict=True):
                grads[i] = own
        carried = part if carries else None
        added = grad if ctx.needs_input_grad[5] else None
        return carried, None, grad_row_mean, grad_scales, grad_mean, added, *grads
