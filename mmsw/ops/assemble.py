"""From small kernels to the cross kernel: the algebra that makes the operator fast.

Both steps of the shift-wise operator are linear, so shifting the output of a small kernel equals
moving the kernel. Per channel this gives a wide kernel (N x L, the horizontal arm), a tall one
(L x N, the vertical arm) and a small one (N x N, the identity). The slots of an arm tile it without
overlap, hence assembly is a scatter of blocks, one permutation per repetition, and a sum over the
repetitions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .pattern_tables import PatternTables, arm_reach, counts, num_groups, shift_slot


class CrossKernels(NamedTuple):
    """Depthwise kernels of the three outputs; tap ``taps // 2`` of an arm is offset 0.

    Attributes:
        wide: Horizontal arm ``[C, taps, N]``, stored transposed (taps run along the columns of the
            map), so that both arms share one tall layout.
        tall: Vertical arm ``[C, taps, N]`` (taps run along the rows).
        small: Identity kernel ``[C, N, N]``.
    """

    wide: Tensor
    tall: Tensor
    small: Tensor


class BranchFactors(NamedTuple):
    """What each small kernel is multiplied by where a repetition places it.

    Attributes:
        h: On the horizontal arm, ``[C * nk, R]``.
        v: On the vertical arm, ``[C * nk, R]``.
        i: In the identity, ``[C, R]``.
    """

    h: Tensor
    v: Tensor
    i: Tensor


def assemble(
    weight: Tensor,
    pattern: PatternTables,
    map_size: tuple[int, int] | None = None,
    factors: BranchFactors | None = None,
) -> CrossKernels:
    """Place the small kernels on the arms of the cross.

    Differentiable. Scatter (forward) and gather (backward) hit every element once per repetition,
    so both directions are deterministic. A pruned small kernel leaves a block of exact zeros.

    Args:
        weight: Small kernels ``[C * nk, 1, N, N]``.
        pattern: Where they are placed.
        map_size: ``(H, W)`` of the map, to drop taps that would only ever read padding; ``None``
            keeps all of them.
        factors: Weights of the branches; ``None``: all are 1.

    Returns:
        The three kernels.
    """
    big, n = pattern.big_kernel, pattern.small_kernel
    channels, reps, groups = counts(pattern)
    blocks = weight.reshape(channels, groups, n * n)

    slot = _slot_index(pattern)
    shape = (2 * reps, channels, groups, n * n)
    source = blocks.expand(shape)
    if factors is not None:
        both = torch.cat([factors.h, factors.v], 1).t()
        source = source * both.reshape(2 * reps, channels, groups, 1)
    placed = blocks.new_zeros(shape).scatter(2, slot, source)
    placed = placed.view(2, reps, channels, groups, n, n)
    wide, tall = placed.sum(1).unbind(0)

    count = identity_count(pattern)
    share = count if factors is None else _identity_share(pattern, factors.i)
    small = torch.where(count > 0, blocks * share, 0.0).sum(1)

    height, width = (None, None) if map_size is None else map_size
    return CrossKernels(
        _centre(wide.transpose(2, 3).reshape(channels, groups * n, n), big, n, width),
        _centre(tall.reshape(channels, groups * n, n), big, n, height),
        small.view(channels, n, n),
    )


def disassemble(grads: CrossKernels, pattern: PatternTables, mask: Tensor | None = None) -> Tensor:
    """Transpose of :func:`assemble`: gradients of the three kernels to that of the small kernels.

    Args:
        grads: Gradients in the shapes that :func:`assemble` returns, cropped arms included.
        pattern: As in :func:`assemble`.
        mask: Boolean ``[C * nk]``; where it is off, the gradient is exactly zero.

    Returns:
        Gradient ``[C * nk, 1, N, N]``.
    """
    big, n, groups = pattern.big_kernel, pattern.small_kernel, pattern.num_groups
    channels = pattern.channels
    wide = _slots_of_arm(grads.wide, big, n).transpose(2, 3)
    tall = _slots_of_arm(grads.tall, big, n)
    placed = torch.stack([wide, tall]).reshape(2, 1, channels, groups, n * n)
    placed = placed.expand(-1, pattern.num_reps, -1, -1, -1).flatten(0, 1)
    grad = placed.gather(2, _slot_index(pattern)).sum(0)

    count = identity_count(pattern)
    grad = grad + torch.where(count > 0, grads.small.reshape(channels, 1, n * n) * count, 0.0)
    return mask_filters(grad.view(channels * groups, 1, n, n), mask)


def mask_filters(grad: Tensor, mask: Tensor | None) -> Tensor:
    """Gradient ``[C * nk, 1, N, N]`` with exact zeros where the mask ``[C * nk]`` is off."""
    return grad if mask is None else torch.where(mask.view(-1, 1, 1, 1), grad, 0.0)


def arm_taps(big_kernel: int, small_kernel: int, map_length: int | None = None) -> int:
    """Taps of an arm: odd; taps farther out than the map is long would only read padding."""
    reach = arm_reach(big_kernel, small_kernel)
    if map_length is not None:
        reach = min(reach, map_length - 1)
    return 2 * reach + 1


def _slot_index(pattern: PatternTables) -> Tensor:
    """Slot of every group, broadcast over its taps: int64 ``[2 * R, C, nk, N * N]``."""
    shift, n = pattern.shift_hv.to(torch.int64), pattern.small_kernel
    slot = shift_slot(shift, pattern.big_kernel, n).t()
    channels, reps, groups = counts(pattern)
    slot = slot.reshape(2 * reps, channels, groups, 1)
    return slot.expand(-1, -1, -1, n * n)


def identity_count(pattern: PatternTables) -> Tensor:
    """How often each group feeds the identity output: ``[C, nk, 1]``."""
    return _is_picked(pattern).sum(1).unsqueeze(2)


def _identity_share(pattern: PatternTables, factor: Tensor) -> Tensor:
    """The same with a factor for each repetition, ``[C, R]``."""
    return torch.where(_is_picked(pattern), factor.unsqueeze(2), 0.0).sum(1).unsqueeze(2)


def _is_picked(pattern: PatternTables) -> Tensor:
    """Which group each repetition picks for the identity output: boolean ``[C, R, nk]``."""
    index, (_, _, groups) = pattern.identity_index, counts(pattern)
    every_group = torch.arange(groups, device=index.device)
    return index.unsqueeze(2) % groups == every_group


def _centre(arm: Tensor, big_kernel: int, small_kernel: int, map_length: int | None) -> Tensor:
    """Pad the tiled slots ``[C, nk * N, N]`` to a centred arm, cropped to what a map can use."""
    taps = arm_taps(big_kernel, small_kernel, map_length)
    before = taps // 2 - big_kernel // 2
    after = taps - num_groups(big_kernel, small_kernel) * small_kernel - before
    return F.pad(arm, (0, 0, before, after))


def _slots_of_arm(arm: Tensor, big_kernel: int, small_kernel: int) -> Tensor:
    """Inverse of :func:`_centre`, with zeros for the taps that were cropped: ``[C, nk, N, N]``."""
    groups = num_groups(big_kernel, small_kernel)
    before = arm.shape[1] // 2 - big_kernel // 2
    after = arm.shape[1] - before - groups * small_kernel
    return F.pad(arm, (0, 0, -before, -after)).reshape(
        arm.shape[0], groups, small_kernel, small_kernel
    )
