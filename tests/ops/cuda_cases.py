"""Patterns and maps that show the CUDA kernels, on the GPU or as block programs on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from mmsw.ops import ShiftPattern

# (M, N, C, R): what the networks use, the edges (one group, N = 1, even M), other sides, every R
SIZES = [
    (5, 3, 3, 1),
    (13, 3, 3, 2),
    (47, 3, 2, 3),
    (49, 3, 2, 4),
    (51, 3, 5, 2),
    (13, 5, 2, 4),
    (49, 5, 2, 2),
    (51, 5, 1, 3),
    (3, 3, 2, 1),
    (7, 1, 2, 2),
    (6, 3, 2, 2),
    (21, 7, 2, 2),
    (301, 3, 2, 1),
]
# (B, H, W): odd, one position, smaller than the reach, each tile side, more than one tile, empty
SHAPES = [
    (2, 5, 7),
    (1, 1, 1),
    (3, 4, 2),
    (1, 3, 70),
    (1, 70, 3),
    (2, 16, 11),
    (1, 37, 62),
    (2, 33, 32),
    (0, 9, 12),
]


def draw(
    pattern: ShiftPattern, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Map, weight, conv output and three gradients, float64 on the CPU but exact in ``dtype``."""
    batch, height, width = shape
    side, border = pattern.small_kernel, 2 * pattern.margin
    kernels = pattern.channels * pattern.num_groups
    sizes = [
        (batch, pattern.channels, height, width),
        (kernels, 1, side, side),
        (batch, kernels, height + border, width + border),
        *[(batch, pattern.channels, height, width)] * 3,
    ]
    return [torch.randn(size).to(dtype).double() for size in sizes]


def evaluate(backend, pattern: ShiftPattern, tensors: list[Tensor]) -> dict[str, Tensor]:
    """Every result of every operator of a backend, by name."""
    tables = pattern.tables()
    x, weight, conv_out, *grads = tensors
    fused = backend.shift_wise_conv2d(x, weight, tables)
    added = backend.shift_add(conv_out, tables)
    return {
        **{f'conv {name}': out for name, out in zip('hvi', fused, strict=True)},
        'grad_input': backend.shift_wise_conv2d_grad_input(grads, weight, tables),
        'grad_weight': backend.shift_wise_conv2d_grad_weight(grads, x, tables),
        **{f'add {name}': out for name, out in zip('hvi', added, strict=True)},
        'add_grad': backend.shift_add_grad(grads, tables),
    }
