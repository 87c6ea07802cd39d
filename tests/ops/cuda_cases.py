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
# (B, H, W): odd, one position, smaller than the reach, each tile side, more images than share a
# thread block, more than one tile, empty
SHAPES = [
    (2, 5, 7),
    (1, 1, 1),
    (9, 4, 2),
    (1, 3, 70),
    (1, 70, 3),
    (3, 16, 11),
    (1, 37, 62),
    (2, 33, 32),
    (0, 9, 12),
]
# Taps of the wide and of the tall arm of a folded layer, and N; as patterns have them, and any odd
ARMS = [
    (53, 49, 3),
    (17, 17, 3),
    (59, 13, 5),
    (7, 9, 3),
    (1, 3, 3),
    (9, 21, 7),
    (3, 5, 1),
    (121, 5, 3),
]
# (M1, M2, N) of depthwise kernels: those of known networks, even sides, one strip, many, N that is
# larger than the short side, N = 1 and other N, and kernels larger than every map
KERNELS = [
    (51, 5, 5),
    (5, 51, 5),
    (31, 31, 5),
    (13, 13, 3),
    (7, 7, 3),
    (7, 7, 5),
    (1, 1, 5),
    (4, 6, 5),
    (2, 9, 3),
    (12, 3, 5),
    (1, 8, 3),
    (10, 7, 1),
    (9, 21, 7),
    (121, 3, 3),
    (3, 149, 5),
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


def draw_arms(
    arms: tuple[int, int, int], channels: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Both arms and the bias of a folded layer, float64 but exact in ``dtype``."""
    wide, tall, side = arms
    sizes = [(channels, wide, side), (channels, tall, side), (channels,)]
    return tuple(torch.randn(size).to(dtype).double() for size in sizes)


def draw_kernel(
    kernel: tuple[int, int], shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Map, kernel, bias and gradient of a depthwise convolution, float64 but exact in ``dtype``."""
    batch, height, width = shape
    map_shape = batch, 2, height, width
    sizes = [map_shape, (2, 1, *kernel), (2,), map_shape]
    return [torch.randn(size).to(dtype).double() for size in sizes]


def evaluate_depthwise(backend, tensors: list[Tensor], side: int) -> dict[str, Tensor]:
    """Every result of the depthwise operators of a backend, by name."""
    x, weight, bias, grad = tensors
    size = tuple(weight.shape[2:])
    return {
        'out': backend.depthwise_conv2d(x, weight, None, side),
        'out, bias': backend.depthwise_conv2d(x, weight, bias, side),
        'grad_input': backend.depthwise_conv2d_grad_input(grad, weight, side),
        'grad_weight': backend.depthwise_conv2d_grad_weight(grad, x, size, side),
    }


# Largest error relative to the largest magnitude. Sums are kept in float32, so the halves are off
# by one rounding of the result.
ROUNDING = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def wrong_results(
    found: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype
) -> dict[str, float]:
    wrong = {}
    for name, target in expected.items():
        ours = found[name]
        assert ours.dtype == dtype, name
        assert ours.shape == target.shape, name
        assert ours.is_contiguous(), name
        if target.numel():
            scale = target.abs().max().clamp_min(1e-30)
            error = ((ours.cpu().double() - target.cpu()).abs().max() / scale.cpu()).item()
            if not error < ROUNDING[dtype]:
                wrong[name] = error
    return wrong
