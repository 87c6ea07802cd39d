"""What a backend is asked to run, as far as the choice of a backend depends on it."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Call(NamedTuple):
    """What a backend is asked to run, gradients included.

    Attributes:
        function: ``'shift_add'``, ``'shift_wise_conv2d'`` or ``'cross_conv2d'``.
        device: Where the tensors are.
        dtype: What they hold.
        big_kernel: Focus length M; of ``cross_conv2d``, the taps of the longer arm.
        small_kernel: Side N.
        num_reps: Repetitions R; 1 for ``cross_conv2d``.
    """

    function: str
    device: torch.device
    dtype: torch.dtype
    big_kernel: int
    small_kernel: int
    num_reps: int = 1
