"""The reference backend: plain PyTorch, for any device and floating dtype.

``shift_add`` follows the definition literally. ``shift_wise_conv2d`` runs three depthwise
convolutions with the assembled cross kernels, so nothing of the size of the small convolutions'
output ever exists.

Two facts about convolutions on the CPU shape this file:

* oneDNN's depthwise kernels are about eight times faster for a tall kernel than for a wide one, so
  the horizontal arm runs as the vertical arm of the transposed map;
* their weight gradient is **wrong** when more than 15 rows of zero padding are requested of it
  (torch 2.13.0, float32, kernel height 33 and more, many map heights), and slow when the kernel is
  taller than the map. Rows padded beforehand avoid both.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from ..assemble import CrossKernels, arm_taps, assemble, disassemble
from ..pattern import conv_margin, num_groups, shift_slot, slot_shift

Outputs = tuple[Tensor, Tensor, Tensor]

DEVICES = None  # every device
HAS_CROSS = True
NEEDS_CHECK = False
limit = None  # it takes every size


def unavailable_reason() -> str | None:
    """This backend is always there."""
    return None


def shift_add(
    conv_out: Tensor, shift_hv: Tensor, identity_index: Tensor, big_kernel: int, small_kernel: int
) -> Outputs:
    """Shift and add, slot by slot; half precision accumulates in float32.

    Groups are picked by indexing: ``index_select`` and ``index_add_`` copy a strided view first.
    """
    margin = conv_margin(small_kernel)
    channels, num_reps = identity_index.shape
    height, width = conv_out.shape[2] - 2 * margin, conv_out.shape[3] - 2 * margin
    wide, tall, small = (
        conv_out.new_zeros(
            (conv_out.shape[0], channels, height, width), dtype=_accumulate_dtype(conv_out.dtype)
        )
        for _ in range(3)
    )
    rows = conv_out[:, :, margin : margin + height]
    columns = conv_out[:, :, :, margin : margin + width]
    for rep, slot, group in _slot_groups(shift_hv, channels, big_kernel, small_kernel):
        shift = slot_shift(slot, big_kernel, small_kernel)
        if rep < num_reps:
            first, last = _overlap(width, margin, shift)
            wide[..., first:last] += rows[..., first - shift : last - shift][:, group]
        else:
            first, last = _overlap(height, margin, shift)
            source = columns[:, :, first - shift : last - shift]
            tall[:, :, first:last] += source[:, group]
    centre = rows[..., margin : margin + width]
    for picked in identity_index.unbind(1):
        small += centre[:, picked]
    return wide.to(conv_out.dtype), tall.to(conv_out.dtype), small.to(conv_out.dtype)


def shift_add_grad(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Tensor:
    """Gradient of :func:`shift_add` with respect to ``conv_out``."""
    margin = conv_margin(small_kernel)
    channels, num_reps = identity_index.shape
    batch, _, height, width = grad_h.shape
    dtype = _accumulate_dtype(grad_h.dtype)
    groups = num_groups(big_kernel, small_kernel)
    grad = grad_h.new_zeros(
        (batch, channels * groups, height + 2 * margin, width + 2 * margin), dtype=dtype
    )
    rows = grad[:, :, margin : margin + height]
    columns = grad[:, :, :, margin : margin + width]
    for rep, slot, group in _slot_groups(shift_hv, channels, big_kernel, small_kernel):
        shift = slot_shift(slot, big_kernel, small_kernel)
        if rep < num_reps:
            first, last = _overlap(width, margin, shift)
            target = rows[..., first - shift : last - shift]
            target[:, group] += grad_h[..., first:last].to(dtype)
        else:
            first, last = _overlap(height, margin, shift)
            target = columns[:, :, first - shift : last - shift]
            target[:, group] += grad_v[:, :, first:last].to(dtype)
    centre = rows[..., margin : margin + width]
    for picked in identity_index.unbind(1):
        centre[:, picked] += grad_i.to(dtype)
    return grad.to(grad_h.dtype)


def shift_wise_conv2d(
    x: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Outputs:
    """Both steps through the cross kernels."""
    dtype = x.dtype
    x, weight = _compute_dtype(x), _compute_dtype(weight)
    kernels = assemble(weight, shift_hv, identity_index, big_kernel, small_kernel, x.shape[2:])
    outputs = (
        depthwise_wide(x, kernels.wide),
        depthwise_tall(x, kernels.tall),
        depthwise_tall(x, kernels.small),
    )
    return tuple(out.to(dtype).contiguous() for out in outputs)


def shift_wise_conv2d_grad_input(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Tensor:
    """Gradient with respect to ``x``: correlation with the flipped cross kernels."""
    dtype = grad_h.dtype
    grad_h, grad_v, grad_i = map(_compute_dtype, (grad_h, grad_v, grad_i))
    kernels = assemble(
        _compute_dtype(weight), shift_hv, identity_index, big_kernel, small_kernel, grad_h.shape[2:]
    )
    wide, tall, small = (kernel.flip(1, 2) for kernel in kernels)
    grad = (
        depthwise_tall(grad_v, tall) + depthwise_wide(grad_h, wide) + depthwise_tall(grad_i, small)
    )
    return grad.to(dtype).contiguous()


def shift_wise_conv2d_grad_weight(
    grad_h: Tensor,
    grad_v: Tensor,
    grad_i: Tensor,
    x: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Tensor:
    """Gradient with respect to the small kernels: that of the cross kernels, gathered."""
    dtype = x.dtype
    x, grad_h, grad_v, grad_i = map(_compute_dtype, (x, grad_h, grad_v, grad_i))
    grads = CrossKernels(
        _conv_grad(x.mT, grad_h.mT, arm_taps(big_kernel, small_kernel, x.shape[3]), small_kernel),
        _conv_grad(x, grad_v, arm_taps(big_kernel, small_kernel, x.shape[2]), small_kernel),
        _conv_grad(x, grad_i, small_kernel, small_kernel),
    )
    return disassemble(grads, shift_hv, identity_index, big_kernel, small_kernel).to(dtype)


def cross_conv2d(x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution with a cross-shaped kernel; in plain ATen operators, differentiable."""
    dtype = x.dtype
    x, wide, tall = _compute_dtype(x), _compute_dtype(wide), _compute_dtype(tall)
    out = _depthwise(_pad_rows(x.mT, wide), wide, 0).mT + _depthwise(_pad_rows(x, tall), tall, 0)
    return (out + bias.to(out.dtype).view(1, -1, 1, 1)).to(dtype).contiguous()


def trace_shift_wise_conv2d(
    x: Tensor,
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Outputs:
    """The same outputs in differentiable ATen operators only, for compilers and exporters.

    Rows are padded beforehand so that autograd's own weight gradient is right on the CPU, and arms
    keep their full length so that the graph holds for every map size.
    """
    wide, tall, small = assemble(weight, shift_hv, identity_index, big_kernel, small_kernel)
    outputs = (
        _depthwise(_pad_rows(x.mT, wide), wide, 0).mT,
        _depthwise(_pad_rows(x, tall), tall, 0),
        _depthwise(_pad_rows(x, small), small, 0),
    )
    return tuple(out.contiguous() for out in outputs)


def depthwise_tall(x: Tensor, kernel: Tensor) -> Tensor:
    """Depthwise convolution with ``[C, taps, N]`` kernels, taps along the rows, "same" padding."""
    return _depthwise(x, kernel, kernel.shape[1] // 2)


def depthwise_wide(x: Tensor, kernel: Tensor) -> Tensor:
    """Depthwise convolution with ``[C, taps, N]`` kernels, taps along the columns."""
    if x.device.type == 'cpu':
        return depthwise_tall(x.mT, kernel).mT
    return F.conv2d(
        x,
        kernel.mT.unsqueeze(1),
        padding=(kernel.shape[2] // 2, kernel.shape[1] // 2),
        groups=x.shape[1],
    )


def _depthwise(x: Tensor, kernel: Tensor, row_padding: int) -> Tensor:
    return F.conv2d(
        x, kernel.unsqueeze(1), padding=(row_padding, kernel.shape[2] // 2), groups=x.shape[1]
    )


def _pad_rows(x: Tensor, kernel: Tensor) -> Tensor:
    return F.pad(x, (0, 0, kernel.shape[1] // 2, kernel.shape[1] // 2))


def _conv_grad(x: Tensor, grad: Tensor, taps: int, side: int) -> Tensor:
    """Weight gradient of :func:`depthwise_tall`: ``[C, taps, side]``."""
    channels = x.shape[1]
    padded = F.pad(x, (0, 0, taps // 2, taps // 2))
    return conv2d_weight(
        padded, (channels, 1, taps, side), grad, padding=(0, side // 2), groups=channels
    ).squeeze(1)


def _compute_dtype(tensor: Tensor) -> Tensor:
    """float16 convolutions on the CPU are slower than float32 ones and round more often."""
    if tensor.dtype == torch.float16 and tensor.device.type == 'cpu':
        return tensor.float()
    return tensor


def _accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _slot_groups(
    shift_hv: Tensor, channels: int, big_kernel: int, small_kernel: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Every (column of ``shift_hv``, slot) with the groups, one per channel, that take the slot."""
    slot = shift_slot(shift_hv.to(torch.int64), big_kernel, small_kernel).t()
    slot = slot.reshape(shift_hv.shape[1], channels, -1)
    groups = slot.shape[2]
    first_group = torch.arange(0, channels * groups, groups, device=slot.device).unsqueeze(1)
    group_at = slot.argsort(dim=2) + first_group
    for rep in range(slot.shape[0]):
        for index in range(groups):
            yield rep, index, group_at[rep, :, index]


def _overlap(length: int, margin: int, shift: int) -> tuple[int, int]:
    """Positions ``[first, last)`` of a map whose shifted read stays inside the conv output."""
    first = min(max(0, shift), length)
    return first, max(first, min(length, length + 2 * margin + shift))
