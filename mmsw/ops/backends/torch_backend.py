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

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from ..assemble import CrossKernels, arm_taps, assemble, disassemble, identity_count
from ..pattern_tables import PatternTables, plain_number, shift_slot, slot_shift
from . import torch_depthwise
from .backend import Outputs
from .call import Call

NEEDS_CHECK = False

depthwise_conv2d = torch_depthwise.depthwise_conv2d
depthwise_conv2d_grad_input = torch_depthwise.depthwise_conv2d_grad_input
depthwise_conv2d_grad_weight = torch_depthwise.depthwise_conv2d_grad_weight


def unavailable_reason() -> str | None:
    """This backend is always there."""
    return None


def refuses(call: Call) -> str | None:
    """It runs everything."""
    return None


def shift_add(conv_out: Tensor, pattern: PatternTables) -> Outputs:
    """Shift and add, slot by slot; half precision accumulates in float32.

    Groups are picked by indexing: ``index_select`` and ``index_add_`` copy a strided view first.
    """
    margin, num_reps, channels = pattern.margin, pattern.num_reps, pattern.channels
    height, width = conv_out.shape[2] - 2 * margin, conv_out.shape[3] - 2 * margin
    wide, tall, small = (
        conv_out.new_zeros(
            (conv_out.shape[0], channels, height, width), dtype=_accumulate_dtype(conv_out.dtype)
        )
        for _ in range(3)
    )
    rows = conv_out[:, :, margin : margin + height]
    columns = conv_out[:, :, :, margin : margin + width]
    for rep, slot, group in _slot_groups(pattern):
        shift = slot_shift(slot, pattern.big_kernel, pattern.small_kernel)
        if rep < num_reps:
            first, last = _overlap(width, margin, shift)
            wide[..., first:last] += rows[..., first - shift : last - shift][:, group]
        else:
            first, last = _overlap(height, margin, shift)
            source = columns[:, :, first - shift : last - shift]
            tall[:, :, first:last] += source[:, group]
    centre = rows[..., margin : margin + width]
    for picked in pattern.identity_index.unbind(1):
        small += centre[:, picked]
    return wide.to(conv_out.dtype), tall.to(conv_out.dtype), small.to(conv_out.dtype)


def shift_add_grad(grads: Outputs, pattern: PatternTables) -> Tensor:
    """Gradient of :func:`shift_add` with respect to ``conv_out``."""
    grad_h, grad_v, grad_i = grads
    margin, num_reps, groups = pattern.margin, pattern.num_reps, pattern.num_groups
    batch, channels, height, width = grad_h.shape
    dtype = _accumulate_dtype(grad_h.dtype)
    grad = grad_h.new_zeros(
        (batch, channels * groups, height + 2 * margin, width + 2 * margin), dtype=dtype
    )
    rows = grad[:, :, margin : margin + height]
    columns = grad[:, :, :, margin : margin + width]
    for rep, slot, group in _slot_groups(pattern):
        shift = slot_shift(slot, pattern.big_kernel, pattern.small_kernel)
        if rep < num_reps:
            first, last = _overlap(width, margin, shift)
            target = rows[..., first - shift : last - shift]
            target[:, group] += grad_h[..., first:last].to(dtype)
        else:
            first, last = _overlap(height, margin, shift)
            target = columns[:, :, first - shift : last - shift]
            target[:, group] += grad_v[:, :, first:last].to(dtype)
    centre = rows[..., margin : margin + width]
    for picked in pattern.identity_index.unbind(1):
        centre[:, picked] += grad_i.to(dtype)
    return grad.to(grad_h.dtype)


def shift_wise_conv2d(x: Tensor, weight: Tensor, pattern: PatternTables) -> Outputs:
    """Both steps through the cross kernels."""
    dtype = x.dtype
    x, weight = _compute_dtype(x), _compute_dtype(weight)
    kernels = assemble(weight, pattern, x.shape[2:])
    outputs = (
        depthwise_wide(x, kernels.wide),
        depthwise_tall(x, kernels.tall),
        depthwise_tall(x, kernels.small),
    )
    return tuple(out.to(dtype).contiguous() for out in outputs)


def shift_wise_conv2d_grad_input(grads: Outputs, weight: Tensor, pattern: PatternTables) -> Tensor:
    """Gradient with respect to ``x``: correlation with the flipped cross kernels."""
    dtype = grads[0].dtype
    grad_h, grad_v, grad_i = map(_compute_dtype, grads)
    kernels = assemble(_compute_dtype(weight), pattern, grad_h.shape[2:])
    wide, tall, small = (kernel.flip(1, 2) for kernel in kernels)
    grad = (
        depthwise_tall(grad_v, tall) + depthwise_wide(grad_h, wide) + depthwise_tall(grad_i, small)
    )
    return grad.to(dtype).contiguous()


def shift_wise_conv2d_grad_weight(
    grads: Outputs, x: Tensor, pattern: PatternTables, mask: Tensor | None = None
) -> Tensor:
    """Gradient with respect to the small kernels: that of the cross kernels, gathered."""
    dtype, big, side = x.dtype, pattern.big_kernel, pattern.small_kernel
    x, grad_h, grad_v, grad_i = map(_compute_dtype, (x, *grads))
    kernels = CrossKernels(
        _conv_grad(x.mT, grad_h.mT, arm_taps(big, side, x.shape[3]), side),
        _conv_grad(x, grad_v, arm_taps(big, side, x.shape[2]), side),
        _conv_grad(x, grad_i, side, side),
    )
    return disassemble(kernels, pattern, mask).to(dtype)


def cross_conv2d(x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise convolution with a cross-shaped kernel; in plain ATen operators, differentiable."""
    dtype = x.dtype
    x, wide, tall = _compute_dtype(x), _compute_dtype(wide), _compute_dtype(tall)
    out = _plain_wide(x, wide) + _plain_tall(x, tall)
    if bias is not None:
        out = out + bias.to(out.dtype).view(1, -1, 1, 1)
    return out.to(dtype).contiguous()


def bias_gelu(hidden: Tensor, bias: Tensor, keep: bool = False) -> tuple[Tensor, Tensor]:
    """See :class:`~mmsw.ops.backends.backend.Backend`; out of place, differentiable."""
    mapped = F.gelu(hidden.to(bias.dtype) + bias.unsqueeze(-1))
    return mapped.to(hidden.dtype), torch.linalg.vector_norm(mapped, dim=-1).square()


def gelu_grad(grad: Tensor, hidden: Tensor, bias: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """See :class:`~mmsw.ops.backends.backend.Backend`; out of place."""
    wide = hidden.to(bias.dtype) + bias.unsqueeze(-1)
    grad_mapped = torch.addcmul(grad.to(bias.dtype), F.gelu(wide), factor.unsqueeze(-1))
    grad_wide = torch.ops.aten.gelu_backward(grad_mapped, wide)
    return grad_wide.to(grad.dtype), grad_wide.sum(-1)


def channel_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, keep: bool = True
) -> Tensor:
    """See :class:`~mmsw.ops.backends.backend.Backend`; out of place, differentiable."""
    out = F.layer_norm(x.transpose(1, 2), (plain_number(x.shape[1]),), weight, bias, eps)
    return out.transpose(1, 2).contiguous()


def row_moments(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """See :class:`~mmsw.ops.backends.backend.Backend`; differentiable."""
    means, centred = [], []
    for one in maps:
        wide = F.pad(_wide(one), (0, 0, 0, maps[0].shape[1] - one.shape[1]))
        mean = wide.mean(2, keepdim=True, dtype=torch.float64)
        means.append(mean.squeeze(2))
        centred.append(wide - mean.to(wide.dtype))
    pairs = {
        (i, k): (centred[i] * centred[k]).mean(2, dtype=torch.float64)
        for i in range(len(maps))
        for k in range(i + 1)
    }
    covariance = [
        torch.stack([pairs[max(i, k), min(i, k)] for k in range(len(maps))])
        for i in range(len(maps))
    ]
    return torch.stack(means), torch.stack(covariance)


def row_products(grad: Tensor, maps: Sequence[Tensor], mean: Tensor) -> Tensor:
    """See :class:`~mmsw.ops.backends.backend.Backend`; differentiable."""
    grad, channels = _wide(grad), grad.shape[1]
    sums = []
    for one, centre in zip(maps, mean, strict=True):
        count = one.shape[1]
        centred = _wide(one) - _first(centre, count).unsqueeze(2).to(grad.dtype)
        found = (_first(grad, count) * centred).sum(2, dtype=torch.float64)
        sums.append(F.pad(found, (0, channels - count)))
    return torch.stack([*sums, grad.sum(2, dtype=torch.float64)])


def _first(rows: Tensor, channels: int) -> Tensor:
    """``[B, C, ...]`` without the last channels."""
    return rows if rows.shape[1] == channels else rows.narrow(1, 0, channels)


def row_sums(
    maps: Sequence[Tensor], mean: Tensor, factors: Tensor, channels: Sequence[int]
) -> list[Tensor]:
    """See :class:`~mmsw.ops.backends.backend.Backend`; differentiable."""
    wide = [
        _wide(one) - _first(centre, one.shape[1]).unsqueeze(2).to(_accumulate_dtype(one.dtype))
        for one, centre in zip(maps, mean, strict=True)
    ]
    outs = []
    for own, count in zip(factors.to(wide[0].dtype), channels, strict=True):
        out = _first(own[-1], count).unsqueeze(2).expand(-1, -1, maps[0].shape[2])
        for scale, one in zip(own, wide, strict=False):
            part = _first(scale, one.shape[1]).unsqueeze(2) * one
            part = F.pad(part, (0, 0, 0, count - part.shape[1]))  # or cut where that is negative
            out = out + part
        outs.append(out.to(maps[0].dtype).contiguous())
    return outs


def trace_shift_add(conv_out: Tensor, pattern: PatternTables) -> Outputs:
    """The outputs of :func:`shift_add` in three convolutions, for exporters.

    Slots are N positions apart, so an arm is a dilated row of ``nk`` taps. Its weights say how many
    repetitions bring a group into a slot. The graph holds for every map size.
    """
    n, channels, groups = pattern.small_kernel, pattern.channels, pattern.num_groups
    margin, before = pattern.margin, pattern.big_kernel // 2 - (n - 1)
    after = (groups - 1) * n - before - 2 * margin
    slot = shift_slot(pattern.shift_hv.to(torch.int64), pattern.big_kernel, n)
    reached = F.one_hot(slot.t(), groups).view(2, pattern.num_reps, channels, groups, groups).sum(1)
    wide, tall = reached.to(conv_out.dtype).unbind(0)
    small = identity_count(pattern).to(conv_out.dtype).unsqueeze(3)
    outputs = (
        _grouped(F.pad(conv_out, (before, after, -margin, -margin)), wide.unsqueeze(2), (1, n)),
        _grouped(F.pad(conv_out, (-margin, -margin, before, after)), tall.unsqueeze(3), (n, 1)),
        _grouped(F.pad(conv_out, (-margin, -margin, -margin, -margin)), small, 1),
    )
    return tuple(out.contiguous() for out in outputs)


def trace_shift_wise_conv2d(
    x: Tensor, weight: Tensor, pattern: PatternTables, mask: Tensor | None = None
) -> Outputs:
    """The same outputs in differentiable ATen operators only, for compilers and exporters.

    Rows are padded beforehand so that autograd's own weight gradient is right on the CPU, and arms
    keep their full length so that the graph holds for every map size.
    """
    if mask is not None:  # its gradient passes where the mask is on
        weight = torch.where(mask.view(-1, 1, 1, 1), weight, weight.detach())
    wide, tall, small = assemble(weight, pattern)
    outputs = (
        _plain_wide(x, wide),
        _plain_tall(x, tall),
        _plain_tall(x, small),
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


def _grouped(x: Tensor, kernel: Tensor, dilation: int | tuple[int, int]) -> Tensor:
    return F.conv2d(x, kernel, dilation=dilation, groups=plain_number(kernel.shape[0]))


def _plain_tall(x: Tensor, kernel: Tensor) -> Tensor:
    """As :func:`depthwise_tall`, with rows that are padded beforehand, for autograd and tracers."""
    channels, taps, side = map(plain_number, kernel.shape)
    padded = F.pad(x, (0, 0, taps // 2, taps // 2))
    kernel = kernel.reshape(channels, 1, taps, side)  # ONNX wants to know the sizes
    return F.conv2d(padded, kernel, padding=(0, side // 2), groups=channels)


def _plain_wide(x: Tensor, kernel: Tensor) -> Tensor:
    # Contiguous: what is added to it must not depend on the order of strides, which one row lacks.
    return _plain_tall(x.transpose(2, 3), kernel).transpose(2, 3).contiguous()


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


def _wide(map_: Tensor) -> Tensor:
    return map_.to(_accumulate_dtype(map_.dtype))


def _accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _slot_groups(pattern: PatternTables) -> Iterator[tuple[int, int, Tensor]]:
    """Every (column of ``shift_hv``, slot) with the groups, one per channel, that take the slot."""
    channels, groups = pattern.channels, pattern.num_groups
    shift = pattern.shift_hv.to(torch.int64)
    slot = shift_slot(shift, pattern.big_kernel, pattern.small_kernel).t()
    slot = slot.reshape(-1, channels, groups)
    first_group = torch.arange(0, channels * groups, groups, device=slot.device).unsqueeze(1)
    group_at = slot.argsort(dim=2) + first_group
    for rep in range(slot.shape[0]):
        for index in range(groups):
            yield rep, index, group_at[rep, :, index]


def _overlap(length: int, margin: int, shift: int) -> tuple[int, int]:
    """Positions ``[first, last)`` of a map whose shifted read stays inside the conv output."""
    first = min(max(0, shift), length)
    return first, max(first, min(length, length + 2 * margin + shift))
