"""What a backend is asked to run, as far as the choice of a backend depends on it."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Call(NamedTuple):
    """What a backend is asked to run.

    Attributes:
        device: Where the tensors are.
        dtype: What they hold.
        big_kernel: Focus length M.
        small_kernel: Side N.
        num_reps: Repetitions R.
    """

    device: torch.device
    dtype: torch.dtype
    big_kernel: int
    small_kernel: int
    num_reps: int
