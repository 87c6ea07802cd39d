"""Multiply-adds of the operators in their cross form: one rule for whoever counts.

A tap that meets padding counts like any other, and so does one that a mask has set to zero.
``torch.utils.flop_counter`` gets the rule for every operator, whoever registered it: two operations
for each multiply-add, one for each addition of ``shift_add``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
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


def count_flops_of_operators() -> None:
    """Tell ``torch.utils.flop_counter`` about every operator that is there; once is enough."""
    for name, formula in _FORMULAS.items():
        packets = (getattr(getattr(torch.ops, space), name, None) for space in _NAMESPACES)
        for packet in filter(None, packets):
            # register_flop_formula of torch 2.4 would register the overloads, which nobody looks up
            flop_registry[packet] = shape_wrapper(formula)


# The formulas get shapes in place of tensors: those of an operator, the pattern, and some names.


def _of_map(map_shape: torch.Size, *rest: Any, out_shape: Any, **kwargs: Any) -> int:
    big, small = [part for part in rest if isinstance(part, int)][-2:]
    return 2 * math.prod(map_shape) * cross_taps(big, small)


def _of_cross(
    x: torch.Size, wide: torch.Size, tall: torch.Size, *rest: Any, out_shape: Any, **kwargs: Any
) -> int:
    side = wide[2]
    blocks = arm_blocks(wide[1], side) + arm_blocks(tall[1], side)
    return 2 * math.prod(x) * blocks * side**2


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
}
