"""The Taichi backend: one kernel source for Taichi's CPU and CUDA archs.

Taichi is imported and started by the first call, never by importing this module. If the program
has started Taichi itself, that runtime is used as it is; otherwise ``ti.init`` runs with the arch
of the first tensor and, on the CPU, with as many threads as torch has at that time; what a ``TI_``
variable of the environment says comes first. One process has one Taichi arch: a tensor on another
kind of device raises an error. So does a process that was forked from one that had started Taichi.

Kernels work on torch's memory. On CUDA, Taichi has a stream of its own: the current torch stream is
synchronized before every launch (``torch.cuda.current_stream().synchronize()``) and Taichi after it
(``ti.sync()``), so the order of torch's stream holds, at the price of waiting on the host.

The fused operators run on the assembled cross kernels, cut into blocks of N x N taps. Blocks of
zeros are not in the lists that the kernels walk, so pruned kernels cost nothing. float32 and
float64 are computed as they are, half types in float32. Every sum has one owner and a fixed order:
results repeat bit for bit, whatever the number of threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..assemble import CrossKernels, arm_taps, assemble, disassemble
from ..pattern_tables import PatternTables
from . import taichi_depthwise
from .backend import Outputs
from .call import Call
from .taichi_blocks import (
    Arm,
    PaddedMap,
    chunks,
    correlate,
    correlate_all,
    correlate_grad,
    crop,
    flat,
    new_map,
    taichi_dtype,
    work,
)
from .taichi_runtime import run_kernel, running_kernels, start_problem

NEEDS_CHECK = False

depthwise_conv2d = taichi_depthwise.depthwise_conv2d
depthwise_conv2d_grad_input = taichi_depthwise.depthwise_conv2d_grad_input
depthwise_conv2d_grad_weight = taichi_depthwise.depthwise_conv2d_grad_weight


def unavailable_reason() -> str | None:
    """Why the backend cannot run in this process; ``None`` if it can."""
    return start_problem()


def refuses(call: Call) -> str | None:
    """It takes every call on the CPU and on CUDA."""
    if call.device.type not in ('cpu', 'cuda'):
        return f'it takes tensors on cpu or cuda, not on {call.device.type}'
    return None


def shift_add(conv_out: Tensor, pattern: PatternTables) -> Outputs:
    """Shift and add, one work item per row of the outputs."""
    source = work(conv_out).contiguous()
    batch, _, rows, columns = source.shape
    height, width = rows - 2 * pattern.margin, columns - 2 * pattern.margin
    outputs = tuple(source.new_empty(batch, pattern.channels, height, width) for _ in range(3))
    if batch:
        _run_rows('shift_add', [source], outputs, pattern, height, width)
    return tuple(out.to(conv_out.dtype) for out in outputs)


def shift_add_grad(grads: Outputs, pattern: PatternTables) -> Tensor:
    """Gradient of :func:`shift_add`, one work item per row of ``conv_out``."""
    sources = [work(grad).contiguous() for grad in grads]
    batch, channels, height, width = sources[0].shape
    border = 2 * pattern.margin
    out = sources[0].new_empty(
        batch, channels * pattern.num_groups, height + border, width + border
    )
    if batch:
        _run_rows('shift_add_grad', sources, (out,), pattern, height, width)
    return out.to(grads[0].dtype)


def shift_wise_conv2d(x: Tensor, weight: Tensor, pattern: PatternTables) -> Outputs:
    """Both steps through the blocks of the cross kernels."""
    if not x.numel():
        return tuple(x.new_empty(x.shape) for _ in range(3))
    arms = _arms(work(weight), pattern)
    outputs = []
    with running_kernels(x) as kernels:
        padded = PaddedMap.around(work(x), arms)
        for arm in arms:
            out = new_map(padded)
            correlate(kernels, arm, padded, out, add=False)
            outputs.append(crop(out, x))
    return tuple(outputs)


def shift_wise_conv2d_grad_input(grads: Outputs, weight: Tensor, pattern: PatternTables) -> Tensor:
    """Gradient with respect to ``x``: the same kernels with the blocks turned around."""
    if not grads[0].numel():
        return grads[0].new_empty(grads[0].shape)
    arms = [arm.flipped for arm in _arms(work(weight), pattern)]
    with running_kernels(grads[0]) as kernels:
        out = None
        for arm, grad in zip(arms, grads, strict=True):
            padded = PaddedMap.around(work(grad), [arm])
            first, out = out is None, new_map(padded) if out is None else out
            correlate(kernels, arm, padded, out, add=not first)
    return crop(out, grads[0])


def shift_wise_conv2d_grad_weight(
    grads: Outputs, x: Tensor, pattern: PatternTables, mask: Tensor | None = None
) -> Tensor:
    """Gradient with respect to the small kernels: that of the blocks, gathered.

    Blocks that hold no small kernel whose mask is on are not computed.
    """
    n, filters = pattern.small_kernel, x.shape[1] * pattern.num_groups
    if not x.numel():
        return x.new_zeros(filters, 1, n, n)
    source = work(x)
    arms = _arms_of_interest(source, pattern, mask)
    with running_kernels(x) as kernels:
        padded = PaddedMap.around(source, arms)
        wide, tall, small = (
            correlate_grad(kernels, arm, padded, work(grad))
            for arm, grad in zip(arms, grads, strict=True)
        )
    arms_grad = _to_taps(wide.transpose(2, 3), pattern), _to_taps(tall, pattern)
    return disassemble(CrossKernels(*arms_grad, small.squeeze(1)), pattern, mask).to(x.dtype)


def cross_conv2d(x: Tensor, wide: Tensor, tall: Tensor, bias: Tensor | None) -> Tensor:
    """Both arms through blocks, added in one output that begins with the bias."""
    return correlate_all(x, [_folded_arm(work(wide), True), _folded_arm(work(tall), False)], bias)


def _arms(weight: Tensor, pattern: PatternTables) -> list[Arm]:
    """The kernels of the three outputs, cut where the slots of the pattern begin."""
    wide, tall, small = assemble(weight, pattern)
    before, slots = -_taps_before(pattern), pattern.num_groups
    return [
        Arm.from_taps(wide, True, before, slots),
        Arm.from_taps(tall, False, before, slots),
        Arm.from_taps(small, False, 0, 1),
    ]


def _arms_of_interest(x: Tensor, pattern: PatternTables, mask: Tensor | None) -> list[Arm]:
    """Arms whose blocks are zero where no gradient is wanted."""
    n, slots = pattern.small_kernel, pattern.num_groups
    if mask is not None:
        filters = mask.to(x.dtype).view(-1, 1, 1, 1).expand(-1, 1, n, n)
        return _arms(filters, pattern)
    one = x.new_ones(())
    first = -(pattern.big_kernel // 2)
    return [
        Arm(one.expand(pattern.channels, slots, n, n), first, True),
        Arm(one.expand(pattern.channels, slots, n, n), first, False),
        Arm(one.expand(pattern.channels, 1, n, n), -(n // 2), False),
    ]


def _folded_arm(taps: Tensor, wide: bool) -> Arm:
    """An arm cut into blocks that end at its last tap.

    So end the slots of the pattern that it was folded from, and pruned slots stay whole blocks.
    """
    _, length, n = taps.shape
    return Arm.from_taps(taps, wide, -length % n, -(-length // n))


def _to_taps(blocks: Tensor, pattern: PatternTables) -> Tensor:
    """Blocks ``[C, nk, N, N]`` as the whole arm that ``disassemble`` takes."""
    before, length = _taps_before(pattern), pattern.num_groups * pattern.small_kernel
    taps = arm_taps(pattern.big_kernel, pattern.small_kernel)
    return F.pad(blocks.flatten(1, 2), (0, 0, before, taps - length - before))


def _taps_before(pattern: PatternTables) -> int:
    """Taps of an arm before the first slot."""
    return arm_taps(pattern.big_kernel, pattern.small_kernel) // 2 - pattern.big_kernel // 2


def _run_rows(
    name: str,
    sources: list[Tensor],
    outputs: tuple[Tensor, ...],
    pattern: PatternTables,
    height: int,
    width: int,
) -> None:
    """Launch a kernel of the second step alone, by chunks of the batch."""
    tables = flat(pattern.shift_hv), flat(pattern.identity_index.to(torch.int32))
    sizes = pattern.channels, pattern.num_groups, pattern.num_reps, height, width, pattern.margin
    largest = max((*sources, *outputs), key=torch.numel)
    with running_kernels(largest) as kernels:
        kernel = getattr(kernels, name)(taichi_dtype(largest))
        for chunk in chunks(kernels, largest):
            run_kernel(
                kernel,
                *(flat(source[chunk]) for source in sources),
                *tables,
                *(flat(out[chunk]) for out in outputs),
                len(largest[chunk]) * pattern.channels,
                *sizes,
            )
