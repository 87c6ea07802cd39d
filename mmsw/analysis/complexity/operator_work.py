"""What the shift-wise operator multiplies: as one cross kernel, after pruning, and naively.

For the complexity of networks and the floor of the operator benchmark, by the rule of
:mod:`mmsw.ops.work`. All counts are multiply-adds of one forward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmsw.ops import ShiftPattern
from mmsw.ops.blur import blur_taps
from mmsw.ops.pattern_tables import conv_margin, num_groups, shift_slot
from mmsw.ops.work import arm_blocks, cross_taps

if TYPE_CHECKING:
    from mmsw.models.backbones.residual_block import ResidualBlock
    from mmsw.models.layers import ShiftWiseConv2d


def small_conv_work(filters: int, small_kernel: int, batch: int, height: int, width: int) -> int:
    """Multiply-adds of the small convolutions as such, on the padded map that the shifts need.

    Args:
        filters: Small kernels, ``C * nk``.
        small_kernel: Side N.
        batch: Samples of the map.
        height: Rows of the map.
        width: Columns of the map.
    """
    border = 2 * conv_margin(small_kernel)
    return batch * filters * small_kernel**2 * (height + border) * (width + border)


def used_blocks(keep: Tensor, pattern: ShiftPattern) -> int:
    """Blocks of the assembled arms and identities where a small kernel is left.

    A block is empty when every group that any repetition places there is pruned.

    Args:
        keep: Which small kernels are left, boolean ``[C * nk]``.
        pattern: Where they are placed.

    Returns:
        Their number over all channels: ``C * (2 * nk + 1)`` when nothing is pruned.
    """
    channels, num_reps, groups = pattern.channels, pattern.num_reps, pattern.num_groups
    keep = keep.view(channels, groups, 1).cpu()
    slot = shift_slot(pattern.shift_hv.cpu().long(), pattern.big_kernel, pattern.small_kernel)
    slot = slot.view(channels, groups, 2, num_reps).permute(2, 0, 1, 3).flatten(2)
    placed = keep.expand(channels, groups, num_reps).flatten(1).int().expand(2, -1, -1)
    arms = torch.zeros(2, channels, groups, dtype=torch.int32).scatter_add_(2, slot, placed)
    group = pattern.identity_index.cpu() % groups
    identity = keep.squeeze(2).gather(1, group).any(1)
    return int((arms > 0).sum()) + int(identity.sum())


def used_taps(layer: ShiftWiseConv2d) -> tuple[int, int]:
    """Taps of the cross kernel in blocks that are not empty, and those of them that are not zero.

    A tap is zero when every small kernel that any path and any repetition places there prunes it.
    Options of the operator other than the published ones count their blocks as filled.

    Args:
        layer: The layer, in its training form.

    Returns:
        Both numbers, over all channels.
    """
    taps = used_blocks(layer.kept_filters(), layer.pattern) * layer.pattern.small_kernel**2
    if layer.variant_options.changed():
        return taps, taps
    kept = torch.stack([path.mask for path in layer.paths]).any(0).flatten(1)
    return taps, sum(used_blocks(tap, layer.pattern) for tap in kept.unbind(1))


def layer_work(
    layer: ShiftWiseConv2d | ResidualBlock, batch: int, height: int, width: int
) -> tuple[int, int, int]:
    """Multiply-adds of a shift-wise layer: unpruned, used, naive.

    Unpruned and used are those of the cross form. The folded form has no identity of its own, and
    its arms are cut into blocks from their first tap, as the ``cpp`` backend does. The naive count
    is that of the small convolutions, once per path, pruned or not: ``C' * nk * N * N`` for each
    of the ``(H + 2e) * (W + 2e)`` positions of their output; the folded form counts as one path.
    A spread identity counts all its taps, pruned or not, until it is folded. What other options add
    (products at the border of the map, constants) is counted where it runs.
    A folded block passes its ghost channels through a kernel of one tap, which is one multiply-add
    for each position. A folded block of SLaK has no small convolutions: naive is as unpruned, and
    a square kernel is one arm.

    Args:
        layer: The layer, in its training or its folded form; or a folded block.
        batch: Samples of the map.
        height: Rows of the map.
        width: Columns of the map.
    """
    positions = batch * height * width
    if layer.deployed:
        big, n, num_paths = layer.kernel_size[0], layer.deploy_wide.shape[2], 1
        arms = [arm for arm in (layer.deploy_wide, layer.deploy_tall) if arm.shape[1] > 1]
        ghosts = len(layer.deploy_wide) - layer.num_active
        dense = layer.num_active * sum(arm_blocks(arm.shape[1], n) for arm in arms) * n**2 + ghosts
        blocks, small = sum(map(_blocks_of_arm, arms)), layer._buffers.get('deploy_small')
        if small is None:
            used = (blocks - ghosts) * n**2 + ghosts  # a ghost's only tap is in one block
        elif layer.variant_options.identity == 'blur':
            dense += small[0].numel() * layer.num_active
            used = blocks * n**2 + int((small != 0).sum())
        else:
            used = blocks * n**2 + ghosts
        if getattr(layer, 'operator_name', None) == 'large_kernel':
            return dense * positions, used * positions, dense * positions
    else:
        big, n = layer.pattern.big_kernel, layer.pattern.small_kernel
        num_paths = len(layer.paths)
        dense = layer.num_active * cross_taps(big, n)
        used = used_blocks(layer.kept_filters(), layer.pattern) * n**2
        if layer.variant_options.identity == 'blur':
            more = layer.num_active * (blur_taps(layer.pattern.num_groups) - n**2)
            dense, used = dense + more, used + more
    filters = num_paths * layer.num_active * num_groups(big, n)
    naive = small_conv_work(filters, n, batch, height, width)
    return dense * positions, used * positions, naive


def _blocks_of_arm(arm: Tensor) -> int:
    """Blocks of N taps that are not all zero in an arm ``[C, taps, N]``."""
    channels, taps, n = arm.shape
    blocks = torch.zeros(channels, arm_blocks(taps, n) * n, n, dtype=torch.bool)
    blocks[:, :taps] = (arm.detach() != 0).cpu()
    return int(blocks.view(channels, -1, n * n).any(2).sum())
