"""Training passes of the residual blocks with their element-wise work fused.

They compute what the layers of :mod:`~mmsw.models.backbones.shiftwise_block` compute one by one,
to rounding, from the same parameters and buffers:

1. the three branch norms, their sum with the input and, in the second generation, the norm behind
   it and the channel attention are one weighted sum of four maps (:mod:`mmsw.ops.rows`);
2. the two linear layers with GELU and GRN are one function (:mod:`mmsw.ops.hidden_layer`);
3. the second norm, layer scale, stochastic depth and the residual are one weighted sum again.

The weighted sums are compiled for the CPU. The layers themselves do 1 and 3 where no compiled
library runs them, where maps are small, and where a norm is no batch norm over the samples of this
process (SyncBN asks the others, GN has other groups).
"""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn.modules import module
from torch.nn.modules.batchnorm import _BatchNorm

from mmsw.models.layers import GlobalResponseNorm, ShiftWiseConv2d, SqueezeExcitation
from mmsw.models.layers.batch_norms import batch_norms
from mmsw.ops.backends import needs_plain_operators
from mmsw.ops.channel_norm import channel_norm
from mmsw.ops.hidden_layer import Response, hidden_layer
from mmsw.ops.rows import Rows, add_scaled, rows_of, runs_rows

# Of a map: below, the sums' work on small tensors takes more time than the maps.
LEAST_VALUES = 1 << 18
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
_WITH_BIAS = ('pointwise_conv1', 'se.down', 'se.up')
_GLOBAL_HOOKS = (
    module._global_forward_hooks,
    module._global_forward_pre_hooks,
    module._global_backward_hooks,
    module._global_backward_pre_hooks,
)


def may_fuse(block: nn.Module, x: Tensor) -> bool:
    """Whether a block may run fused: in training, outside of compilers, and nobody would notice.

    A layer that somebody has hooked, replaced or parametrised must be called itself. Gradients may
    be off: recomputed parts run without them at first, and must give the same bits twice.
    """
    return (
        block.training
        and not x.is_meta
        and x.numel() > 0
        and x.ndim == 4
        and not torch.compiler.is_compiling()
        and not needs_plain_operators(None)
        and not any(_GLOBAL_HOOKS)
        and _is_as_built(block, x.shape[1])
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
    if isinstance(block.drop_path, nn.Identity) or not _sums_pay(block, x):
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
    scale, shift = batch_norms([block.norm2], rows.mean, rows.covariance[0], y.shape[2])
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
    weights, offset = _branch_norms(layer, rows, 0)
    weights = weights.unsqueeze(1)
    mean = (weights * rows.mean).sum(0) + offset
    return rows.combine(weights.expand_as(rows.mean), mean, entry)


def _attended(block: nn.Module, x: Tensor) -> Tensor:
    """The shift-wise layer, the norm behind it and the attention, ``[B, C, P]``."""
    layer = block.shift_wise
    rows = rows_of(*_maps(*layer.branches(x)), backend=layer.backend)
    weights, offset = _branch_norms(layer, rows, 1)
    weights = weights.unsqueeze(1)
    mean = (weights * rows.mean).sum(0) + offset
    variance = ((rows.covariance * weights).sum(1) * weights).sum(0)
    scale, shift = batch_norms([block.norm], mean[None], variance[None], rows.maps[0].shape[2])
    mean = scale * mean + shift
    down, up = block.se.down, block.se.up
    squeezed = mean.to(down.weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        squeezed = F.linear(squeezed, down.weight.flatten(1), down.bias).relu()
        attention = F.linear(squeezed, up.weight.flatten(1), up.bias).sigmoid().double()
    return rows.combine(weights * (scale * attention), mean * attention)


def _branch_norms(layer: ShiftWiseConv2d, rows: Rows, others: int) -> tuple[Tensor, Tensor]:
    """Factors of all maps, and the sum of the shifts of the norms, ``[C]``.

    Args:
        layer: Whose norms they are.
        rows: Some maps that are summed as they are, and the three branches.
        others: How many those are.

    Returns:
        ``[n, C]``, one for the other maps, and zero beyond the channels of the branches; ``[C]``.
    """
    active = layer.num_active
    mean = rows.mean[others:, :, :active]
    variance = rows.covariance.diagonal().permute(2, 0, 1)[others:, :, :active]
    scales, shifts = batch_norms(layer.branch_norms(), mean, variance, rows.maps[0].shape[2])
    beyond = rows.mean.shape[2] - active
    if not (others or beyond):
        return scales, shifts.sum(0)
    return F.pad(scales, (0, beyond, others, 0)) + _ones(scales, others, beyond), F.pad(
        shifts.sum(0), (0, beyond)
    )


def _ones(scales: Tensor, others: int, beyond: int) -> Tensor:
    """One for the other maps, zero for the branches."""
    ones = scales.new_zeros(others + len(scales), scales.shape[1] + beyond)
    ones[:others] = 1
    return ones


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


def _is_as_built(block: nn.Module, channels: int) -> bool:
    """Whether all layers that are passed over are those of the design, and wait for nobody."""
    layers = dict(block.named_modules())
    kinds = {name: kind for name, kind in _PASSED_OVER.items() if name in layers}
    if 'grn' not in layers:
        kinds['norm'] = nn.LayerNorm  # of the first generation
        if getattr(block.norm, 'normalized_shape', None) != (channels,):
            return False
    biased = [name for name in _WITH_BIAS if name in layers]
    if 'grn' not in layers:
        biased.append('pointwise_conv2')
    return (
        block.shift_wise.in_channels == channels
        and all(
            type(layers[name]) is kind and not _is_hooked(layers[name])
            for name, kind in kinds.items()
        )
        and type(block.drop_path) in (DropPath, nn.Identity)
        and not _is_hooked(block.drop_path)
        and all(layers[name].bias is not None for name in biased)
        and all(layers[name].groups == 1 for name in ('se.down', 'se.up') if name in layers)
        and block.act.approximate == 'none'
    )


def _is_hooked(layer: nn.Module) -> bool:
    """Whether something wants to be called with a layer, other than for maps of one position."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    found = (hook for some in hooks for hook in some.values())
    wanted = not all(getattr(hook, 'for_one_position', False) for hook in found)
    return wanted or 'forward' in vars(layer)


def _is_batch_norm(norm: nn.Module) -> bool:
    """Whether statistics are those of the batch of this process, and nobody would notice."""
    alone = not (dist.is_available() and dist.is_initialized())
    forward = type(norm).forward
    return not _is_hooked(norm) and (
        forward is _BatchNorm.forward or (forward is nn.SyncBatchNorm.forward and alone)
    )


def _takes_rows(block: nn.Module, x: Tensor, *norms: nn.Module) -> bool:
    """Whether weighted sums do the work of the branch norms and of some others."""
    return (
        _sums_pay(block, x)
        and x[0, 0].numel() > 1  # a norm may refuse one value per sample, as a hook may
        and all(map(_is_batch_norm, (*block.shift_wise.branch_norms(), *norms)))
    )


def _sums_pay(block: nn.Module, x: Tensor) -> bool:
    """Whether weighted sums of maps of this size are compiled, and faster than layers."""
    return x.numel() >= LEAST_VALUES and runs_rows(x, block.shift_wise.backend)
