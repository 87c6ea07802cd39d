"""A shift-wise layer folded for inference: paths, norms and skip connection in one cross kernel.

The published design folds to two arms and a bias. Some options need tensors beside them:

* a spread identity does not fit into the cross, so its kernel stays (``deploy_small``);
* where the small convolution keeps the size of the map, blocks of the arms are left out at the
  border. The identity and the skip connection are not, so they stay apart as well;
* position constants are a bias that differs at the border: one number per slot and arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsw.ops import cross_conv2d
from mmsw.ops.assemble import CrossKernels
from mmsw.ops.map_border import leave_out_tall, leave_out_wide
from mmsw.ops.position import PositionSums

from .operator_variant import constant_maps, run_spread
from .variant_options import VariantOptions, options_problem

ARMS = ('deploy_wide', 'deploy_tall', 'deploy_bias')
BESIDE = ('deploy_small', 'deploy_position_h', 'deploy_position_v', 'deploy_position_i')
OPTIONS = 'deploy_options'  # what says which options a folded layer has, where it has any


def fold_operator(
    kernels: CrossKernels,
    norms: Sequence[nn.Module],
    options: VariantOptions,
    positions: PositionSums | None = None,
) -> dict[str, Tensor]:
    """Fold the operator, its three norms and the skip connection.

    Args:
        kernels: Of the three outputs, float64, see :class:`OperatorVariant`.
        norms: Of the three outputs.
        options: Of the layer.
        positions: Its constants, float64.

    Returns:
        Those of :data:`ARMS` and :data:`BESIDE` that the layer needs, float64, channels first.

    Raises:
        TypeError: If a norm is not a batch norm with running statistics.
    """
    scales, biases = zip(*map(_affine, norms), strict=True)
    wide, tall, small = (
        kernel * scale.view(-1, 1, 1) for kernel, scale in zip(kernels, scales, strict=True)
    )
    folded = dict(deploy_wide=wide, deploy_tall=tall, deploy_bias=sum(biases))
    if options.padding == 'same' or options.identity == 'blur':
        add_tap(small)
        folded['deploy_small'] = small
    else:
        folded['deploy_tall'] = _with_centre(tall, small)
        add_tap(folded['deploy_tall'])
    if positions is not None:
        h, v, i = (
            sums * scale.view(-1, *[1] * (sums.ndim - 1))
            for sums, scale in zip(positions, scales, strict=True)
        )
        folded.update(deploy_position_h=h, deploy_position_v=v)
        if options.identity == 'blur':
            folded['deploy_position_i'] = i
        else:
            folded['deploy_bias'] = folded['deploy_bias'] + i
    return folded


def run_folded(layer: nn.Module, x: Tensor) -> Tensor:
    """The folded operator of a layer, or of a block that holds one, ``[B, C, H, W]`` to the same.

    Args:
        layer: What has the tensors of :func:`fold_operator`, ``variant_options`` and
            ``kernel_size``.
        x: The map.
    """
    options, big_kernel = layer.variant_options, layer.kernel_size[0]
    wide, tall, bias = layer.deploy_wide, layer.deploy_tall, layer.deploy_bias
    if options.is_one_cross:
        return cross_conv2d(x, wide, tall, bias, layer.backend)
    whole = tall
    if options.padding == 'same' and options.identity == 'centre':
        whole = _with_centre(tall, layer.deploy_small)
    out = cross_conv2d(x, wide, whole, bias, layer.backend)
    if options.identity == 'blur':
        out = out + run_spread(x, layer.deploy_small, options, layer.backend)
    if options.padding == 'same':
        out = leave_out_wide(out, x, wide, big_kernel)
        out = leave_out_tall(out, x, tall, big_kernel)
    if options.position:
        h, v = layer.deploy_position_h, layer.deploy_position_v
        spread = options.identity == 'blur'
        i = layer.deploy_position_i if spread else torch.zeros_like(bias)
        maps = constant_maps(PositionSums(h, v, i), x.shape[2:], options, big_kernel, wide.shape[2])
        for one in maps if spread else maps[:2]:
            out = out + one.to(out.dtype)
    return out.contiguous()


def stored_options_problem(
    layer: nn.Module, state_dict: Mapping[str, Tensor], prefix: str
) -> str | None:
    """What to say where a state dict has a layer, or a folded block, with other options.

    The small kernels of the published design may start a layer with any options.

    Args:
        layer: What it is loaded into.
        state_dict: The state dict.
        prefix: What precedes the names of the layer in it.
    """
    if not layer.deployed:
        found = state_dict.get(f'{prefix}variant.options')
    elif f'{prefix}{ARMS[0]}' in state_dict:
        found = state_dict.get(f'{prefix}{OPTIONS}', VariantOptions().as_tensor())
    else:
        found = None
    return options_problem(found, layer.variant_options)


def _with_centre(tall: Tensor, small: Tensor) -> Tensor:
    """A tall arm and the identity kernel in one: ``[C, taps, N]``."""
    before = (tall.shape[1] - small.shape[1]) // 2
    whole = tall.clone()
    whole[:, before : before + small.shape[1]] += small
    return whole


def add_tap(kernel: Tensor) -> None:
    """Let kernels ``[C, rows, columns]`` add the map itself, in place."""
    kernel[:, kernel.shape[1] // 2, kernel.shape[2] // 2] += 1


def can_be_folded(norm: nn.Module) -> bool:
    """Whether a norm is the same affine function for all samples in inference."""
    return isinstance(norm, _BatchNorm) and norm.running_var is not None


def affine_of(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Scale and bias, in float64, of a batch norm in inference, from its tensors."""
    scale = (variance.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and bias, in float64, of a batch norm in inference."""
    if not can_be_folded(norm):
        raise TypeError(
            f'only batch norms with running statistics can be folded, got {type(norm).__name__}; '
            'keep the training form'
        )
    return affine_of(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
