"""Training passes of the residual blocks with their element-wise work fused.

They compute what the layers of :mod:`~mmsw.models.backbones.shiftwise_block` compute one by one,
to rounding, from the same parameters and buffers:

1. the three branch norms, their sum with the input and, in the second generation, the norm behind
   it and the channel attention are one weighted sum of four maps (:mod:`mmsw.ops.rows`);
2. the two linear layers with GELU and GRN are one function (:mod:`mmsw.ops.hidden_layer`);
3. the second norm, layer scale, stochastic depth and the residual are one weighted sum again.

The weighted sums are compiled for the CPU. Where no compiled library runs them, and where a norm is
no batch norm over the samples of this process (SyncBN asks the others, GN has other groups), the
layers themselves do 1 and 3.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsw.models.layers import GlobalResponseNorm, ShiftWiseConv2d, SqueezeExcitation
from mmsw.ops.backends import needs_plain_operators
from mmsw.ops.channel_norm import channel_norm
from mmsw.ops.hidden_layer import Response, hidden_layer
from mmsw.ops.rows import Rows, add_scaled, rows_of, runs_rows

# Layers that are not called when a block runs fused; the norms are besides.
_PASSED_OVER = {
    'shift_wise': ShiftWiseConv2d,
    'se': SqueezeExcitation,
    'se.down': nn.Conv2d,
    'se.act': nn.ReLU,
    'se.up': nn.Conv2d,
    'pointwise_conv1': nn.Linear,
    'act': nn.GELU,
    'grn': GlobalResponseNorm,
    'pointwise_conv2': nn.Linear,
}


def may_fuse(block: nn.Module, x: Tensor) -> bool:
    """Whether a block may run fused: in training, outside of compilers, and nobody would notice.

    A layer that somebody has hooked, replaced or parametrised must be called itself. Gradients may
    be off: recomputed parts run without them at first, and must give the same bits twice.
    """
    return (
        block.training
        and not x.is_meta
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not needs_plain_operators(None)
        and all(_may_pass_over(*entry) for entry in _passed_over(block))
        and block.act.approximate == 'none'
    )


def run_v1(block: nn.Module, x: Tensor) -> Tensor:
    """A block of the first generation, ``[B, C, H, W]`` to the same shape."""
    layer, norm, linear2 = block.shift_wise, block.norm, block.pointwise_conv2
    z = _summed(layer, x) if _takes_rows(block, x) else layer(x).flatten(2)
    z = channel_norm(z, norm.weight, norm.bias, norm.eps, backend=layer.backend)
    if block.gamma is None or _may_underflow(x):
        y = _hidden(block, z, linear2.weight, linear2.bias)
        return block.add_to(x, y.unflatten(2, x.shape[2:]))
    # Scaling the weight instead of the map, the gradient of the layer scale needs no map.
    y = _hidden(block, z, block.gamma.unsqueeze(1) * linear2.weight, block.gamma * linear2.bias)
    x_rows, y = _maps(x, y, dtype=_dtype(block, x, y))
    if isinstance(block.drop_path, nn.Identity):
        return (x_rows + block.drop_path(y)).view(x.shape)
    kept = block.drop_path(x_rows.new_ones(len(x), 1, 1)).squeeze(2).double()
    return add_scaled(x_rows, y, kept.expand(x.shape[:2]), layer.backend).view(x.shape)


def run_v2(block: nn.Module, x: Tensor) -> Tensor:
    """A block of the second generation, ``[B, C, H, W]`` to the same shape."""
    layer, grn = block.shift_wise, block.grn
    with_rows = _takes_rows(block, x, block.norm, block.norm2)
    z = _attended(block, x) if with_rows else block.se(block.norm(layer(x))).flatten(2)
    response = Response(grn.gamma, grn.beta, grn.eps)
    y = _hidden(block, z, block.pointwise_conv2.weight, block.pointwise_conv2.bias, response)
    if not with_rows:
        return block.add_to(x, block.norm2(y.unflatten(2, x.shape[2:])))
    x_rows, y = _maps(x, y, dtype=_dtype(block, x, y))
    rows = rows_of(y, backend=layer.backend)
    scale, shift = _batch_norm(block.norm2, rows.mean[0], rows.covariance[0, 0], y.shape[2])
    factor = _factor(block, x_rows)
    scales, mean = (factor * scale).expand_as(rows.mean), factor * (scale * rows.mean[0] + shift)
    return rows.combine(scales, mean, x_rows).view(x.shape)


def _hidden(
    block: nn.Module,
    z: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    response: Response | None = None,
) -> Tensor:
    """Both linear layers and what is between them, ``[B, C, P]`` to the same.

    Args:
        block: Whose first layer it is.
        z: The map.
        weight: Of the second layer, ``[C, K]``.
        bias: Of the second layer.
        response: Parameters of GRN.
    """
    first = block.pointwise_conv1
    tensors = z, first.weight, first.bias, weight, bias, response
    return hidden_layer(*tensors, recompute=block.recompute, backend=block.shift_wise.backend)


def _summed(layer: ShiftWiseConv2d, x: Tensor) -> Tensor:
    """The layer without its cat: branch norms and the sum with the input, ``[B, C, P]``."""
    entry, *branches = _maps(*layer.branches(x))
    rows = rows_of(*branches, backend=layer.backend)
    weights, offset = _branch_norms(layer, rows, rows.mean.shape[2], 0)
    mean = (weights.unsqueeze(1) * rows.mean).sum(0) + offset
    return rows.combine(weights.unsqueeze(1).expand_as(rows.mean), mean, entry)


def _attended(block: nn.Module, x: Tensor) -> Tensor:
    """The shift-wise layer, the norm behind it and the attention, ``[B, C, P]``."""
    layer = block.shift_wise
    rows = rows_of(*_maps(*layer.branches(x)), backend=layer.backend)
    positions, channels = rows.maps[0].shape[2], rows.maps[0].shape[1]
    weights, offset = _branch_norms(layer, rows, channels, 1)
    weights = torch.cat([torch.ones_like(weights[:1]), weights])  # the input itself
    mean = (weights.unsqueeze(1) * rows.mean).sum(0) + offset
    variance = torch.einsum('ic,jc,ijbc->bc', weights, weights, rows.covariance)
    scale, shift = _batch_norm(block.norm, mean, variance, positions)
    mean = scale * mean + shift
    down, up = block.se.down, block.se.up
    squeezed = F.linear(mean, down.weight.double().flatten(1), down.bias.double()).relu()
    attention = F.linear(squeezed, up.weight.double().flatten(1), up.bias.double()).sigmoid()
    return rows.combine(weights.unsqueeze(1) * (scale * attention), mean * attention)


def _branch_norms(
    layer: ShiftWiseConv2d, rows: Rows, channels: int, first: int
) -> tuple[Tensor, Tensor]:
    """Factors of the three branches, ``[3, C]``, and the sum of their shifts, ``[C]``.

    Args:
        layer: Whose norms they are.
        rows: The branches are three maps of it, with moments.
        channels: C; beyond those of the branches, factors and shifts are zero.
        first: Which map is the first of them.
    """
    active = layer.num_active
    found = [
        _batch_norm(
            norm,
            rows.mean[i, :, :active],
            rows.covariance[i, i, :, :active],
            rows.maps[0].shape[2],
        )
        for i, norm in enumerate(layer.branch_norms(), first)
    ]
    weights, shifts = (
        F.pad(torch.stack(v), (0, channels - active)) for v in zip(*found, strict=True)
    )
    return weights, shifts.sum(0)


def _batch_norm(
    norm: _BatchNorm, mean: Tensor, variance: Tensor, positions: int
) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[C]`` of a batch norm in this pass; it counts the batch.

    Args:
        norm: In training or in evaluation mode.
        mean: Of every row of its map, ``[B, C]``, float64.
        variance: Likewise, biased.
        positions: Of a row.
    """
    counts = norm.training and norm.track_running_stats
    if norm.training or norm.running_mean is None:
        values = len(mean) * positions
        variance = variance.mean(0) + mean.var(0, unbiased=False)
        mean = mean.mean(0)
        if counts and norm.running_mean is not None:
            _count(norm, mean.detach(), variance.detach(), values)
    else:
        mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


@torch.no_grad()
def _count(norm: _BatchNorm, mean: Tensor, variance: Tensor, values: int) -> None:
    """Let running statistics follow those of a batch, as the layer does."""
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    unbiased = variance * (values / (values - 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)


def _may_underflow(x: Tensor) -> bool:
    """Whether a weight times a layer scale, 1e-6 at first, may be lost: float16 ends at 6e-8."""
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    return torch.float16 in (x.dtype, autocast)


def _factor(block: nn.Module, x: Tensor) -> Tensor:
    """Stochastic depth and layer scale, ``[B, C]`` or ``[B, 1]``, float64."""
    kept = block.drop_path(x.new_ones(len(x), 1, 1, 1)).flatten(1).double()
    return kept if block.gamma is None else kept * block.gamma.double()


def _dtype(block: nn.Module, *tensors: Tensor) -> torch.dtype:
    """What the sum of two maps holds, the second one scaled."""
    tensors = tensors if block.gamma is None else (*tensors, block.gamma)
    return functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))


def _maps(*maps: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    """``[B, C, H, W]`` or ``[B, C, P]`` as ``[B, C, P]`` of one dtype, that of the sum of all."""
    if dtype is None:
        dtype = functools.reduce(torch.promote_types, (map_.dtype for map_ in maps))
    return [map_.flatten(2).to(dtype) for map_ in maps]


def _passed_over(block: nn.Module) -> Iterator[tuple[nn.Module, type]]:
    layers = dict(block.named_modules())
    if isinstance(block.norm, nn.LayerNorm):
        yield block.norm, nn.LayerNorm
    for name, kind in _PASSED_OVER.items():
        if name in layers:
            yield layers[name], kind


def _may_pass_over(layer: nn.Module, kind: type) -> bool:
    return type(layer) is kind and not _is_hooked(layer)


def _is_hooked(layer: nn.Module) -> bool:
    """Whether a hook wants to be called, other than for maps of one position."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    found = (hook for some in hooks for hook in some.values())
    return not all(getattr(hook, 'for_one_position', False) for hook in found)


def _is_batch_norm(norm: nn.Module) -> bool:
    """Whether statistics are those of the batch of this process, and nobody would notice."""
    alone = not (dist.is_available() and dist.is_initialized())
    forward = type(norm).forward
    return not _is_hooked(norm) and (
        forward is _BatchNorm.forward or (forward is nn.SyncBatchNorm.forward and alone)
    )


def _takes_rows(block: nn.Module, x: Tensor, *norms: nn.Module) -> bool:
    """Whether weighted sums do the work of the branch norms and of some others."""
    layer = block.shift_wise
    return (
        x[0, 0].numel() > 1  # a norm may refuse one value per sample, as a hook may
        and all(map(_is_batch_norm, (*layer.branch_norms(), *norms)))
        and runs_rows(x, layer.backend)
    )
