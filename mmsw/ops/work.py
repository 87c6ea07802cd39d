"""Multiply-adds of the operators in their cross form: one rule for whoever counts.

A tap that meets padding counts like any other, and so does one that a mask has set to zero. A
channel of the folded form that has one tap in all is a ghost channel, which passes unchanged: it
counts one multiply-add for each position. Where the taps have no values (while a program is traced,
compiled or run on tensors without data) such a channel counts like the others. A large depthwise
kernel counts all of its weights, as torch counts them, wherever it is cut.
``torch.utils.flop_counter`` gets the rule for every operator, whoever registered it: two operations
for each multiply-add, one for each addition of ``shift_add``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, shape_wrapper

from .assemble import arm_taps
from .pattern_tables import num_groups

_NAMESPACES = ('mmsw', 'mmsw_cpp', 'mmsw_cuda')


def cross_taps(big_kernel: int, small_kernel: int, whole_arms: bool = False) -> int:
    """Multiply-adds per position and channel of the unpruned operator in its cross form.

    An arm consists of ``nk`` blocks of N x N weights, and the identity is one more.

    Args:
        big_kernel: Focus length M.
        small_kernel: Side N.
        whole_arms: Count arms of L taps, ``2 * N * L + N * N``: L is odd, so that an arm has a
            centre, and up to N - 1 of its taps are zero whatever the weights.
    """
    n = small_kernel
    taps = arm_taps(big_kernel, n) if whole_arms else num_groups(big_kernel, n) * n
    return 2 * n * taps + n * n


def arm_blocks(taps: int, small_kernel: int) -> int:
    """Blocks of N x N weights that an arm of the folded form is cut into."""
    return -(-taps // small_kernel)


def folded_taps(wide: Tensor, tall: Tensor) -> int:
    """Multiply-adds per position of the folded form of all channels.

    Args:
        wide: Arm ``[C, taps, N]`` along the rows.
        tall: Arm ``[C, taps, N]`` along the columns.
    """
    channels, side = wide.shape[0], wide.shape[2]
    whole = (arm_blocks(wide.shape[1], side) + arm_blocks(tall.shape[1], side)) * side**2
    ghosts = _ghost_channels(wide, tall)
    return (channels - ghosts) * whole + ghosts


def _ghost_channels(wide: Tensor, tall: Tensor) -> int:
    """Channels with one tap; 0 where the taps have no values."""
    with torch.no_grad():
        found = (sum((arm != 0).flatten(1).sum(1) for arm in (wide, tall)) == 1).sum()
    return int(found) if type(found) is Tensor and not found.is_meta else 0


def count_flops_of_operators() -> None:
    """Tell ``torch.utils.flop_counter`` about every operator that is there; once is enough.

    Products that add onto a tensor in place are of torch, but it does not count them.
    """
    for product in (torch.ops.aten.addmm_, torch.ops.aten.baddbmm_):
        flop_registry.setdefault(product, _of_added_product)
    for name, formula in _FORMULAS.items():
        packets = (getattr(getattr(torch.ops, space), name, None) for space in _NAMESPACES)
        for packet in filter(None, packets):
            # register_flop_formula of torch 2.4 would register the overloads, which nobody looks up
            flop_registry[packet] = formula


# The formulas get the arguments of an operator: its tensors, the pattern, and some names. Those in
# shape_wrapper get shapes in place of tensors.


@shape_wrapper
def _of_map(map_shape: torch.Size, *rest: Any, out_shape: Any, **kwargs: Any) -> int:
    big, small = [part for part in rest if isinstance(part, int)][-2:]
    return 2 * math.prod(map_shape) * cross_taps(big, small)


def _of_cross(x: Tensor, wide: Tensor, tall: Tensor, *rest: Any, **kwargs: Any) -> int:
    return 2 * (x.numel() // x.shape[1]) * folded_taps(wide, tall)


@shape_wrapper
def _of_depthwise(map_shape: torch.Size, weight: torch.Size, *rest: Any, **kwargs: Any) -> int:
    return 2 * math.prod(map_shape) * math.prod(weight[2:])


@shape_wrapper
def _of_depthwise_grad_weight(
    map_shape: torch.Size, *rest: Any, out_shape: torch.Size, **kwargs: Any
) -> int:
    return 2 * math.prod(map_shape) * math.prod(out_shape[2:])


@shape_wrapper
def _of_added_product(
    onto: torch.Size, first: torch.Size, second: torch.Size, *rest: Any, **kwargs: Any
) -> int:
    return 2 * math.prod(onto) * first[-1]


@shape_wrapper
def _of_added(*arguments: Any, out_shape: Any, **kwargs: Any) -> int:
    """Additions: a group goes once into either arm and some go into the identity, R times."""
    tables = next(i for i, part in enumerate(arguments) if isinstance(part, int)) - 2
    filters, (channels, reps) = arguments[tables][0], arguments[tables + 1]
    maps = arguments[0] if isinstance(out_shape[0], int) else out_shape[0]
    return math.prod(maps) * reps * (2 * filters // channels + 1)


_FORMULAS = {
    'shift_add': _of_added,
    'shift_add_grad': _of_added,
    'shift_wise_conv2d': _of_map,
    'shift_wise_conv2d_grad_input': _of_map,
    'shift_wise_conv2d_grad_weight': _of_map,
    'cross_conv2d': _of_cross,
    'depthwise_conv2d': _of_depthwise,
    'depthwise_conv2d_grad_input': _of_depthwise,
    'depthwise_conv2d_grad_weight': _of_depthwise_grad_weight,
}
