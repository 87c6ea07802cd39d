"""What operators and backends get of a pattern, and the algebra of its sizes.

``M`` is the focus length (``big_kernel``), ``N`` the side of the small kernels, ``nk`` their number
per channel ("groups"), ``R`` the number of repetitions.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from mmsw.whole_number import whole_number


class PatternTables(NamedTuple):
    """The pattern as operators and backends read it; see :class:`~mmsw.ops.ShiftPattern`.

    Attributes:
        shift_hv: Shifts in pixels, int32 ``[C * nk, 2 * R]``, contiguous: R horizontal columns,
            then R vertical ones.
        identity_index: Groups of the identity output, int64 ``[C, R]``, contiguous.
        big_kernel: Focus length M.
        small_kernel: Side N.
    """

    shift_hv: Tensor
    identity_index: Tensor
    big_kernel: int
    small_kernel: int

    @property
    def channels(self) -> int:
        """Channels C."""
        return counts(self)[0]

    @property
    def num_reps(self) -> int:
        """Repetitions R."""
        return counts(self)[1]

    @property
    def num_groups(self) -> int:
        """Small kernels per channel, ``nk``."""
        return counts(self)[2]

    @property
    def margin(self) -> int:
        """Rows (columns) ``e`` by which a conv output exceeds the map on each side."""
        return conv_margin(self.small_kernel)


def counts(pattern: PatternTables) -> tuple[int, int, int]:
    """C, R and nk; for code that torch.compile traces, which before torch 2.5 knows no property."""
    channels, num_reps = map(plain_number, pattern.identity_index.shape)
    return channels, num_reps, num_groups(pattern.big_kernel, pattern.small_kernel)


def plain_number(size: int) -> int:
    """A size that never changes, as a number: TorchScript would follow where it comes from."""
    if not torch.jit.is_tracing():
        return size
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that it is a constant from here on
        return int(size)


def num_groups(big_kernel: int, small_kernel: int) -> int:
    """Small kernels that cover the focus length: ``nk = ceil(M / N)``."""
    return -(-big_kernel // small_kernel)


def conv_margin(small_kernel: int) -> int:
    """Margin ``e = N - 1 - N // 2`` around the map in the output of the small convolution."""
    return small_kernel - 1 - small_kernel // 2


def arm_reach(big_kernel: int, small_kernel: int) -> int:
    """Farthest tap from the centre; an arm of the cross kernel has ``L = 2 * reach + 1`` taps."""
    last = num_groups(big_kernel, small_kernel) * small_kernel - 1
    return max(big_kernel // 2, last - big_kernel // 2)


def slot_shift(slot: Tensor, big_kernel: int, small_kernel: int) -> Tensor:
    """Shift of a slot in pixels: ``pad[i] = M // 2 - i * N - (N - 1)``."""
    return big_kernel // 2 - (small_kernel - 1) - slot * small_kernel


def shift_slot(shift: Tensor, big_kernel: int, small_kernel: int) -> Tensor:
    """Slot that a shift belongs to, the inverse of :func:`slot_shift`."""
    return (big_kernel // 2 - (small_kernel - 1) - shift) // small_kernel


def slot_centre(slot: Tensor | int, big_kernel: int, small_kernel: int) -> Tensor | int:
    """Where the block of a slot has its centre on an arm, in pixels from the centre of the arm."""
    return slot * small_kernel + small_kernel // 2 - big_kernel // 2


def check_kernel_sizes(big_kernel: int, small_kernel: int) -> tuple[int, int]:
    """M and N as ``int``; raises ``ValueError`` unless ``1 <= N <= M`` and N is odd."""
    big_kernel, small_kernel = positive(big_kernel=big_kernel, small_kernel=small_kernel)
    if small_kernel % 2 == 0:
        raise ValueError(f'small_kernel must be odd, got {small_kernel}')
    if small_kernel > big_kernel:
        raise ValueError(
            f'small_kernel must not exceed big_kernel, got {small_kernel} > {big_kernel}'
        )
    return big_kernel, small_kernel


def positive(**sizes: int) -> list[int]:
    """Sizes as ``int``; raises ``ValueError`` unless each is a positive whole number."""
    return [whole_number(value, name, positive=True) for name, value in sizes.items()]
