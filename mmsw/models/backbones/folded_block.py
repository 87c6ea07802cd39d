"""Whole residual blocks folded for inference: the algebra, and the forward passes.

A folded block is channel-major: a map of ``[B, C, H, W]`` is ``[B, C, P]`` with ``P = H * W``
positions, and nothing is permuted, gathered or concatenated. What is left of a block:

1. one cross convolution over all channels. A ghost channel, which passes unchanged, is a kernel of
   one tap there, so that the channels keep their order, and the batch norm behind the operator goes
   into the kernels and biases of all channels;
2. two matrix products with one pass over the hidden map between them. Layer scale and the second
   batch norm go into the second product, which adds onto the residual.

What depends on the sample stays: the channel attention and the response norm (two factors per
channel) of the second generation, the statistics of the layer norm of the first.

The arms and their bias are buffers, as those of a folded
:class:`~mmsw.models.layers.ShiftWiseConv2d`. The weights of the products are parameters, which
require a gradient if the block did. So whoever asks whether a network is frozen, or counts
parameters, gets the answer of before; nothing trains a folded block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsw.models.layers.folded_operator import ARMS, BESIDE, add_tap, affine_of, run_folded
from mmsw.models.layers.norms import may_be_split, scaled
from mmsw.ops.channel_norm import channel_norm
from mmsw.ops.hidden_map import bias_gelu
from mmsw.ops.joined_samples import by_row, join, map_of, rows_by_sample, samples_together, separate

# Up to this many hidden channels the factors of the response norm go into the weights where a
# program is to hold for any size: maps with few channels have many positions.
_MOST_SCALED_WEIGHTS = 1024
# Positions of a hidden map that is worked on in one go on the CPU, over all samples of a batch, and
# the fewest of a sample.
_MOST_POSITIONS = 1024
_LEAST_POSITIONS = 256

Tensors = Mapping[str, Tensor]


@torch.no_grad()
def fold_v1(block: Tensors, layer: str = 'shift_wise') -> dict[str, Tensor]:
    """Fold a block of the first generation, or of SLaK.

    Args:
        block: Tensors of the block by the names of its state dict, the large kernel folded.
        layer: Name of the layer that is the large kernel.

    Returns:
        Arms and parameters of the folded block, float64.
    """
    block, order = _in_double(block), _order(block, layer)
    expand = block['pointwise_conv1.weight']
    reduce, bias = block['pointwise_conv2.weight'], block['pointwise_conv2.bias']
    scale = block.get('gamma', torch.ones_like(bias))
    return {
        **_arms(block, layer, order, torch.ones_like(bias), torch.zeros_like(bias)),
        'expand_weight': _in_place(expand * block['norm.weight'], order, 1),
        'expand_bias': block['pointwise_conv1.bias'] + expand @ block['norm.bias'],
        'reduce_weight': scale.unsqueeze(1) * reduce,
        'reduce_bias': scale * bias,
    }


@torch.no_grad()
def fold_v2(block: Tensors, eps: tuple[float, ...]) -> dict[str, Tensor]:
    """Fold a block of the second generation.

    Args:
        block: Tensors of the block by the names of its state dict, the shift-wise layer folded.
        eps: What ``norm`` and ``norm2`` add to the variance, and GRN to the mean response.

    Returns:
        Arms and parameters of the folded block, float64.
    """
    block, order = _in_double(block), _order(block, 'shift_wise')
    scale, shift = _affine(block, 'norm', eps[0])
    scale2, shift2 = _affine(block, 'norm2', eps[1])
    if 'gamma' in block:
        scale2, shift2 = scale2 * block['gamma'], shift2 * block['gamma']
    reduce = block['pointwise_conv2.weight']
    return {
        **_arms(block, 'shift_wise', order, scale, shift),
        'squeeze_weight': _in_place(block['se.down.weight'].flatten(1), order, 1),
        'squeeze_bias': block['se.down.bias'],
        'excite_weight': _in_place(block['se.up.weight'].flatten(1), order, 0),
        'excite_bias': _in_place(block['se.up.bias'], order, 0),
        'expand_weight': _in_place(block['pointwise_conv1.weight'], order, 1),
        'expand_bias': block['pointwise_conv1.bias'],
        'response': block['grn.gamma'],
        'reduce_weight': scale2.unsqueeze(1) * reduce,
        'reduce_bias': shift2 + scale2 * (reduce @ block['grn.beta']),
    }


def run_v1(block: nn.Module, x: Tensor) -> Tensor:
    """Forward pass of a folded block of :func:`fold_v1`, ``[B, C, H, W]`` to the same."""
    z = channel_norm(_operator(block, x), eps=block.norm_eps[0], keep=False, backend=block.backend)
    together = _samples_together(z)
    out = _shifted(block, x, together)
    for piece, start in _pieces(join(z, together)):
        hidden = _product(block.expand_weight, piece)
        hidden, _ = bias_gelu(hidden, block.expand_bias, block.backend)
        out = _add_product(out, start, block.reduce_weight, hidden)
    return separate(out, together).view(x.shape)


def run_v2(block: nn.Module, x: Tensor) -> Tensor:
    """Forward pass of a folded block of the second generation, ``[B, C, H, W]`` to the same."""
    z = _operator(block, x)
    squeezed = F.linear(z.mean(2), block.squeeze_weight, block.squeeze_bias).relu()
    attention = F.linear(squeezed, block.excite_weight, block.excite_bias).sigmoid()
    z = scaled(z, attention.unsqueeze(2))
    together = _samples_together(z)
    bias, weight = by_row(block.expand_bias, together), block.reduce_weight
    pieces = _pieces(z) if together == 1 else [(join(z, together), 0)]
    found = []  # first positions, rows of the hidden map, sums of squares
    for piece, start in pieces:
        rows = rows_by_sample(_product(block.expand_weight, piece), together)
        found.append((start, *bias_gelu(rows, bias, block.backend)))
    norms = sum(squares for _, _, squares in found).sqrt().unflatten(1, (-1, together))
    response = norms / (norms.mean(1, keepdim=True) + block.norm_eps[2])
    factor = (block.response.unsqueeze(1) * response + 1).to(weight.dtype)
    scales_weight = together == 1 and _scales_weight(weight, z)
    if scales_weight:
        weight = weight * factor.transpose(1, 2)  # TorchScript's exporter knows no mT
    out = _shifted(block, x, together)
    for start, rows, _ in found:
        if not scales_weight:
            rows = scaled(rows, factor.flatten(1).unsqueeze(2).to(rows.dtype))
        out = _add_product(out, start, weight, map_of(rows, together))
    return separate(out, together).view(x.shape)


def _operator(block: nn.Module, x: Tensor) -> Tensor:
    """The cross convolution and all norms behind it, ``[B, C, P]``."""
    return run_folded(block, x).flatten(2)


def _samples_together(z: Tensor) -> int:
    """How many samples a product takes: one wherever the map may not be split, see there."""
    return samples_together(z) if may_be_split(z) else 1


def _pieces(z: Tensor) -> list[tuple[Tensor, int]]:
    """A map in pieces of positions, each with its first one: their hidden maps fit into a cache.

    Whole where it would be split for nothing, see :func:`may_be_split`.
    """
    if not may_be_split(z):
        return [(z, 0)]
    positions = z.shape[2]
    length = max(_LEAST_POSITIONS, _MOST_POSITIONS // max(z.shape[0], 1))
    return [
        (z.narrow(2, start, min(length, positions - start)), start)
        for start in range(0, positions, length)
    ]


def _scales_weight(weight: Tensor, z: Tensor) -> bool:
    """Whether a second weight for each sample is smaller than the hidden map."""
    if may_be_split(z):
        return weight.shape[0] <= z.shape[2]
    return weight.shape[1] <= _MOST_SCALED_WEIGHTS


def _product(weight: Tensor, x: Tensor) -> Tensor:
    """``weight [K, C]`` or ``[B, K, C]`` times ``x [B, C, P]``."""
    return torch.bmm(weight.expand(x.shape[0], -1, -1), x)


def _shifted(block: nn.Module, x: Tensor, together: int) -> Tensor:
    """``x`` and the bias behind the last product, a copy: ``[B, C, P]``, joined."""
    return (join(x.flatten(2), together) + block.reduce_bias.unsqueeze(1)).contiguous()


def _add_product(out: Tensor, start: int, weight: Tensor, hidden: Tensor) -> Tensor:
    """Add ``weight @ hidden`` to a map from a position on, in place where it can be."""
    # Autocast knows no meta tensors.
    in_place = not out.is_meta and not torch.is_autocast_enabled(out.device.type)
    if not in_place or out.dtype != hidden.dtype:
        return out + _product(weight, hidden)
    length = hidden.shape[2]
    part = out if length == out.shape[2] else out.narrow(2, start, length)
    part.baddbmm_(weight.expand(part.shape[0], -1, -1), hidden)
    return out


def _in_double(block: Tensors) -> dict[str, Tensor]:
    return {key: tensor.double() for key, tensor in block.items() if tensor.is_floating_point()}


def _order(block: Tensors, layer: str) -> Tensor:
    """Which channel of a layer each channel of the map is, ``[C]``."""
    return block[f'{layer}.channel_order'].argsort()


def _in_place(tensor: Tensor, order: Tensor, dim: int) -> Tensor:
    """What a layer has by its own order of the channels, by that of the map."""
    return tensor.index_select(dim, order)


def _affine(block: Tensors, name: str, eps: float) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm."""
    return affine_of(
        block[f'{name}.running_mean'],
        block[f'{name}.running_var'],
        block.get(f'{name}.weight'),
        block.get(f'{name}.bias'),
        eps,
    )


def _arms(
    block: Tensors, layer: str, order: Tensor, scale: Tensor, shift: Tensor
) -> dict[str, Tensor]:
    """Arms of all channels, in the order of the map, with the norm behind the operator.

    Args:
        block: The tensors, in float64.
        layer: Name of the layer that is the large kernel.
        order: See :func:`_order`.
        scale: That of the norm, ``[C]`` in the order of the layer.
        shift: Likewise.
    """
    own = {name: block.get(f'{layer}.{name}') for name in (*ARMS, *BESIDE)}
    arms = {name: arm for name, arm in own.items() if arm is not None}
    active = len(arms['deploy_bias'])
    arms = {name: _with_ghosts(arm, len(scale)) for name, arm in arms.items()}
    add_tap(arms.get('deploy_small', arms['deploy_tall'])[active:])
    arms = {name: arm * scale.view(-1, *[1] * (arm.ndim - 1)) for name, arm in arms.items()}
    arms['deploy_bias'] = arms['deploy_bias'] + shift
    return {name: _in_place(arm, order, 0) for name, arm in arms.items()}


def _with_ghosts(tensor: Tensor, channels: int) -> Tensor:
    """A tensor of the processed channels with zeros for the others, ``[channels, ...]``."""
    return F.pad(tensor, [0] * (2 * tensor.ndim - 1) + [channels - len(tensor)])
