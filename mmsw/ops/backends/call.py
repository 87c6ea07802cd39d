"""What a backend is asked to run, as far as the choice of a backend depends on it."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Call(NamedTuple):
    """What a backend is asked to run, gradients included.

    Attributes:
        function: A function of :class:`~mmsw.ops.backends.backend.Backend`.
        device: Where the tensors are.
        dtype: What they hold.
        big_kernel: Focus length M; of ``cross_conv2d``, the taps of the longer arm; 1 without any.
        small_kernel: Side N; 1 without any.
        num_reps: Repetitions R; 1 for ``cross_conv2d``.
    """

    function: str
    device: torch.device
    dtype: torch.dtype
    big_kernel: int = 1
    small_kernel: int = 1
    num_reps: int = 1
