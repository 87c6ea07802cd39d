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

from .pattern import arm_reach, num_groups, shift_slot


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


def assemble(
    weight: Tensor,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
    map_size: tuple[int, int] | None = None,
) -> CrossKernels:
    """Place the small kernels on the arms of the cross.

    Differentiable. Scatter (forward) and gather (backward) hit every element once per repetition,
    so both directions are deterministic. A pruned small kernel leaves a block of exact zeros.

    Args:
        weight: Small kernels ``[C * nk, 1, N, N]``.
        shift_hv: Shifts ``[C * nk, 2 * R]`` of :class:`~mmsw.ops.ShiftPattern`, in pixels.
        identity_index: Identity groups ``[C, R]``.
        big_kernel: Focus length M.
        small_kernel: Side N.
        map_size: ``(H, W)`` of the map, to drop taps that would only ever read padding; ``None``
            keeps all of them.

    Returns:
        The three kernels.
    """
    n, groups = small_kernel, num_groups(big_kernel, small_kernel)
    channels, num_reps = identity_index.shape
    blocks = weight.reshape(channels, groups, n * n)

    slot = _slot_index(shift_hv, channels, big_kernel, n)
    placed = blocks.new_zeros(slot.shape).scatter(2, slot, blocks.expand(slot.shape))
    wide, tall = placed.view(2, num_reps, channels, groups, n, n).sum(1).unbind(0)

    count = _identity_count(identity_index, groups)
    small = torch.where(count > 0, blocks * count, 0.0).sum(1)

    height, width = (None, None) if map_size is None else map_size
    return CrossKernels(
        _centre(wide.transpose(2, 3).reshape(channels, groups * n, n), big_kernel, n, width),
        _centre(tall.reshape(channels, groups * n, n), big_kernel, n, height),
        small.view(channels, n, n),
    )


def disassemble(
    grads: CrossKernels,
    shift_hv: Tensor,
    identity_index: Tensor,
    big_kernel: int,
    small_kernel: int,
) -> Tensor:
    """Transpose of :func:`assemble`: gradients of the three kernels to that of the small kernels.

    Args:
        grads: Gradients in the shapes that :func:`assemble` returns, cropped arms included.
        shift_hv: As in :func:`assemble`.
        identity_index: As in :func:`assemble`.
        big_kernel: Focus length M.
        small_kernel: Side N.

    Returns:
        Gradient ``[C * nk, 1, N, N]``.
    """
    n, groups = small_kernel, num_groups(big_kernel, small_kernel)
    channels, num_reps = identity_index.shape
    wide = _slots_of_arm(grads.wide, big_kernel, n).transpose(2, 3)
    tall = _slots_of_arm(grads.tall, big_kernel, n)
    placed = torch.stack([wide, tall]).reshape(2, 1, channels, groups, n * n)
    placed = placed.expand(-1, num_reps, -1, -1, -1).flatten(0, 1)
    grad = placed.gather(2, _slot_index(shift_hv, channels, big_kernel, n)).sum(0)

    count = _identity_count(identity_index, groups)
    grad = grad + torch.where(count > 0, grads.small.reshape(channels, 1, n * n) * count, 0.0)
    return grad.view(channels * groups, 1, n, n)


def arm_taps(big_kernel: int, small_kernel: int, map_length: int | None = None) -> int:
    """Taps of an arm: odd; taps farther out than the map is long would only read padding."""
    reach = arm_reach(big_kernel, small_kernel)
    if map_length is not None:
        reach = min(reach, map_length - 1)
    return 2 * reach + 1


def _slot_index(shift_hv: Tensor, channels: int, big_kernel: int, small_kernel: int) -> Tensor:
    """Slot of every group, broadcast over its taps: int64 ``[2 * R, C, nk, N * N]``."""
    slot = shift_slot(shift_hv.to(torch.int64), big_kernel, small_kernel).t()
    slot = slot.reshape(shift_hv.shape[1], channels, -1, 1)
    return slot.expand(-1, -1, -1, small_kernel * small_kernel)


def _identity_count(identity_index: Tensor, groups: int) -> Tensor:
    """How often each group feeds the identity output: ``[C, nk, 1]``."""
    every_group = torch.arange(groups, device=identity_index.device)
    return (identity_index.unsqueeze(2) % groups == every_group).sum(1).unsqueeze(2)


def _centre(arm: Tensor, big_kernel: int, small_kernel: int, map_length: int | None) -> Tensor:
    """Pad the tiled slots ``[C, nk * N, N]`` to a centred arm, cropped to what a map can use."""
    taps = arm_taps(big_kernel, small_kernel, map_length)
    before = taps // 2 - big_kernel // 2
    after = taps - arm.shape[1] - before
    return F.pad(arm, (0, 0, before, after))


def _slots_of_arm(arm: Tensor, big_kernel: int, small_kernel: int) -> Tensor:
    """Inverse of :func:`_centre`, with zeros for the taps that were cropped: ``[C, nk, N, N]``."""
    groups = num_groups(big_kernel, small_kernel)
    before = arm.shape[1] // 2 - big_kernel // 2
    after = arm.shape[1] - before - groups * small_kernel
    return F.pad(arm, (0, 0, -before, -after)).reshape(
        arm.shape[0], groups, small_kernel, small_kernel
    )
