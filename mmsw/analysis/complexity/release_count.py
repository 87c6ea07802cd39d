"""How mmcv 1.x counts: the rule behind the figures that the authors print as "GFLOPs".

Their tool (``get_flops.py`` of mmsegmentation 0.x and mmdetection 2.x, over
``mmcv.cnn.get_model_complexity_info``) looks at calls of modules whose class is exactly one of a
list, and takes a multiply-add as one operation. What runs as a function counts nothing, nor does a
class that is not listed: SyncBN, GELU, every layer norm that is not ``nn.LayerNorm`` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import mmcv.cnn.bricks as bricks
from torch import Tensor, nn

from mmsw.models.layers import DepthwiseConv2d, ShiftWiseLargeKernel


def release_count(module: nn.Module, x: Tensor, out: Tensor) -> int:
    """Operations that mmcv 1.x counts for one call of a module itself, without its children.

    Args:
        module: The module.
        x: Its first input.
        out: Its output.
    """
    rule = _RULES.get(type(module))
    return 0 if rule is None else rule(module, x, out)


def _convolution(module: nn.Module, x: Tensor, out: Tensor) -> int:
    positions = out.shape[0] * prod(out.shape[2:])
    filters = prod(module.kernel_size) * module.in_channels * module.out_channels // module.groups
    return positions * (filters + (0 if module.bias is None else module.out_channels))


def _transposed_convolution(module: nn.Module, x: Tensor, out: Tensor) -> int:
    positions = x.shape[0] * prod(x.shape[2:])
    filters = prod(module.kernel_size) * module.in_channels * module.out_channels // module.groups
    # the bias is counted at height x height positions, a slip that square maps do not show
    bias = 0 if module.bias is None else module.out_channels * out.shape[0] * out.shape[2] ** 2
    return positions * filters + bias


def _linear(module: nn.Module, x: Tensor, out: Tensor) -> int:
    return x.numel() * out.shape[-1]  # without the bias


def _per_input(module: nn.Module, x: Tensor, out: Tensor) -> int:
    return x.numel()


def _per_output(module: nn.Module, x: Tensor, out: Tensor) -> int:
    return out.numel()


def _per_output_of_first_sample(module: nn.Module, x: Tensor, out: Tensor) -> int:
    return out[0].numel()


def _norm(module: nn.Module, x: Tensor, out: Tensor) -> int:
    affine = getattr(module, 'affine', False) or getattr(module, 'elementwise_affine', False)
    return x.numel() * (2 if affine else 1)


_CLASSES: dict[Callable[[nn.Module, Tensor, Tensor], int], tuple[type[nn.Module], ...]] = {
    _convolution: (
        nn.Conv1d, nn.Conv2d, nn.Conv3d, bricks.Conv2d, bricks.Conv3d,
        DepthwiseConv2d, ShiftWiseLargeKernel,  # plain convolutions there
    ),
    _transposed_convolution: (nn.ConvTranspose2d, bricks.ConvTranspose2d),
    _linear: (nn.Linear, bricks.Linear),
    _per_output: (nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6),
    _per_input: (
        nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, bricks.MaxPool2d, bricks.MaxPool3d,
        nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
        nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
        nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    ),
    _norm: (
        nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm,
        nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    ),
    _per_output_of_first_sample: (nn.Upsample,),
}  # fmt: skip
_RULES = {kind: rule for rule, kinds in _CLASSES.items() for kind in kinds}
