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

MOST_MAPS = 5  # that the compiled passes take


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
        pending: Gradients on their way from the sums to the moments, which finish them.
    """

    maps: tuple[Tensor, ...]
    mean: Tensor
    covariance: Tensor
    backend: str | None
    pending: list[tuple[Tensor, Tensor]]

    def combine(self, scales: Tensor, mean: Tensor, added: Tensor | None = None) -> Tensor:
        """``added + sum over maps of scales * (map - its mean) + mean``.

        Args:
            scales: ``[n, B, C]``, float64; what stands where a map has no row does not matter.
            mean: ``[B, C]``, float64: means of the rows of the result, without ``added``.
            added: ``[B, D, P]`` with at least C channels, or ``None``. Those beyond pass unchanged.

        Returns:
            ``[B, C, P]``, or ``[B, D, P]``, of the dtype of the maps.
        """
        return _Combine.apply(
            self.pending, self.backend, self.mean, scales, mean, added, *self.maps
        )


def rows_of(*maps: Tensor, backend: str | None = None) -> Rows:
    """Moments of the rows of some maps.

    Args:
        maps: ``[B, C', P]`` with contiguous positions and any other strides, of one dtype.
        backend: See :func:`mmsw.ops.shift_wise_conv2d`.
    """
    pending: list[tuple[Tensor, Tensor]] = []
    mean, covariance = _Moments.apply(pending, backend, *maps)
    return Rows(maps, mean, covariance, backend, pending)


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
    """Its backward pass also does what :class:`_Combine` leaves to it, all in one pass."""

    @staticmethod
    def forward(
        ctx: Any, pending: list, backend: str | None, *maps: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.pending, ctx.backend = pending, backend
        mean, covariance = _backend(maps[0], backend).row_moments(maps)
        ctx.save_for_backward(mean, *maps)
        return mean, covariance

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_covariance: Tensor) -> tuple:
        mean, *maps = ctx.saved_tensors
        # The slope of an entry of the covariance is the other map, centred, over P.
        slopes = (grad_covariance + grad_covariance.transpose(0, 1)) / maps[0].shape[2]
        constant = grad_mean / maps[0].shape[2]
        run, parts = torch_backend, []
        if not torch.is_grad_enabled():  # it is not differentiated again
            run, parts = _backend(maps[0], ctx.backend), list(ctx.pending)
            if len(parts) + len(maps) > MOST_MAPS:
                run = torch_backend
        ctx.pending.clear()
        wanted = [i for i, asked in enumerate(ctx.needs_input_grad[2:]) if asked]
        factors = [torch.cat([slopes, constant.unsqueeze(1)], 1)[wanted]]
        factors = [scales[wanted].unsqueeze(1) for _, scales in parts] + factors
        channels = [maps[i].shape[1] for i in wanted]
        maps = [*(grad for grad, _ in parts), *maps]
        mean = F.pad(mean, (0, 0, 0, 0, len(parts), 0))
        sums = run.row_sums(maps, mean, torch.cat(factors, 1), channels)
        grads: list[Tensor | None] = [None] * (len(ctx.needs_input_grad) - 2)
        for i, grad in zip(wanted, sums, strict=True):
            grads[i] = grad
        return None, None, *grads


class _Combine(torch.autograd.Function):
    """Without ``pending``, the weights do not come from moments of the maps."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        pending, backend, row_mean, scales, mean, added, *maps = arguments
        ctx.pending, ctx.backend = pending, backend
        # Their own gradients need the maps no more.
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
        again = torch.is_grad_enabled()  # whether it is differentiated again
        run = torch_backend if again else _backend(grad, ctx.backend)
        grad = grad.contiguous()
        part = grad.narrow(1, 0, ctx.channels[0])
        grad_row_mean = grad_scales = grad_mean = None
        if maps:
            sums = run.row_products(part, maps, row_mean)
            grad_scales, grad_mean = sums[:-1], sums[-1]
            grad_row_mean = -scales * grad_mean
        grads: list[Tensor | None] = [None] * len(ctx.channels)
        if again or ctx.pending is None:
            for i, channels in enumerate(ctx.channels):
                if ctx.needs_input_grad[6 + i]:
                    zero = torch.zeros_like(scales[:1])
                    factors = torch.cat([scales[i : i + 1], zero]).unsqueeze(0)
                    grads[i] = run.row_sums([part], zero, factors, [channels])[0]
        elif ctx.needs_input_grad[2]:
            ctx.pending.append((part, scales))
        added = grad if ctx.needs_input_grad[5] else None
        return None, None, grad_row_mean, grad_scales, grad_mean, added, *grads
