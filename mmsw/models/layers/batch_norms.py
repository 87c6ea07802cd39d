"""Batch norms as factors and shifts of channels, from moments of the rows of their maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmsw.ops.plain_grads import needs_plain_grads, plain_grads

Affine = Sequence[Tensor | None]  # weight and bias of one norm after the other


def batch_norms(
    norms: Sequence[_BatchNorm], mean: Tensor, variance: Tensor, positions: int
) -> tuple[Tensor, Tensor]:
    """What some batch norms are in this pass; each counts the batch, as it does when called.

    Args:
        norms: k of them, in training or in evaluation mode.
        mean: Of every row (a channel of a sample) of their maps, ``[k, B, C]``, float64.
        variance: Likewise, biased.
        positions: Of a row.

    Returns:
        Scales and shifts, both ``[k, C]``, float64: a norm is ``scale * map + shift``.
    """
    counted = [not norm.training and norm.running_mean is not None for norm in norms]
    if len(norms) > 1 and any(counted):
        found = [
            batch_norms([norm], mean[i : i + 1], variance[i : i + 1], positions)
            for i, norm in enumerate(norms)
        ]
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))
    affine = [tensor for norm in norms for tensor in (norm.weight, norm.bias)]
    eps = [norm.eps for norm in norms]
    if any(counted):
        centre, total = norms[0].running_mean.double(), norms[0].running_var.double()
        return _affine(centre.unsqueeze(0), total.unsqueeze(0), affine, eps)[:2]
    scale, shift, centre, total = _OfBatch.apply(eps, mean, variance, *affine)
    for norm, own_centre, own_total in zip(norms, centre, total, strict=True):
        if norm.training and norm.track_running_stats:
            _count(norm, own_centre, own_total, mean.shape[1] * positions)
    return scale, shift


@torch.no_grad()
def _count(norm: _BatchNorm, mean: Tensor, variance: Tensor, values: int) -> None:
    """Let running statistics follow those of a batch, as the layer does."""
    share = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            share = 1 / float(norm.num_batches_tracked)
    if norm.running_mean is None:
        return
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    unbiased = variance * (values / (values - 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)


def _statistics(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over samples and positions, ``[k, C]``."""
    return mean.mean(1), variance.mean(1) + mean.var(1, unbiased=False)


def _affine(
    centre: Tensor, total: Tensor, affine: Affine, eps: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Scales, shifts, reciprocal deviations and weights, ``[k, C]``."""
    same = len(set(eps)) == 1
    rstd = (total + (eps[0] if same else total.new_tensor(eps).unsqueeze(1))).rsqrt()
    weight, bias = (_stacked(affine[i::2], centre, fill) for i, fill in ((0, 1.0), (1, 0.0)))
    scale = rstd if weight is None else rstd * weight
    shift = -centre * scale
    return scale, shift if bias is None else shift + bias, rstd, weight


def _stacked(vectors: Affine, like: Tensor, fill: float) -> Tensor | None:
    """Vectors of some norms, ``[k, C]``; ``None`` where no norm has one."""
    if all(vector is None for vector in vectors):
        return None
    rows = [like.new_full(like.shape[1:], fill) if v is None else v.to(like.dtype) for v in vectors]
    return torch.stack(rows)


class _OfBatch(torch.autograd.Function):
    """Written out: of small tensors, what autograd does beside an operator takes the time."""

    @staticmethod
    def forward(
        ctx: Any, eps: list[float], mean: Tensor, variance: Tensor, *affine: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        centre, total = _statistics(mean, variance)
        scale, shift, rstd, weight = _affine(centre, total, affine, eps)
        ctx.eps = eps
        ctx.mark_non_differentiable(centre, total)
        ctx.save_for_backward(mean, variance, centre, rstd, scale, weight, *affine)
        return scale, shift, centre, total

    @staticmethod
    def backward(ctx: Any, grad_scale: Tensor, grad_shift: Tensor, *_: Tensor) -> tuple:
        mean, variance, centre, rstd, scale, weight, *affine = ctx.saved_tensors
        if needs_plain_grads(grad_scale, grad_shift):
            tensors, wanted = [mean, variance, *affine], ctx.needs_input_grad[1:]

            def form(mean: Tensor, variance: Tensor, *affine: Tensor | None) -> tuple[Tensor, ...]:
                return _affine(*_statistics(mean, variance), affine, ctx.eps)[:2]

            return None, *plain_grads(form, tensors, wanted, grad_scale, grad_shift)
        samples = mean.shape[1]
        grad_scale = grad_scale - centre * grad_shift
        grad_rstd = grad_scale if weight is None else grad_scale * weight
        grad_total = grad_rstd * (rstd * rstd * rstd).mul_(-0.5 / samples)
        grad_centre = scale * grad_shift
        grad_mean = (mean - centre.unsqueeze(1)).mul_(2 * grad_total.unsqueeze(1))
        grad_mean -= grad_centre.div_(samples).unsqueeze(1)
        grads: list[Tensor | None] = [None] * len(affine)
        for first, own in ((0, grad_scale * rstd), (1, grad_shift)):
            for i, row in zip(range(first, len(affine), 2), own, strict=True):
                if ctx.needs_input_grad[3 + i]:
                    grads[i] = row.to(affine[i].dtype)
        return None, grad_mean, grad_total.unsqueeze(1).expand_as(variance), *grads
