"""Averages of networks with masks, for ``torch.optim.swa_utils.AveragedModel``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn

Average = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]


def masks_copied(average: Average | None = None) -> Average:
    """Let an average of weights and buffers copy masks, and counters too.

    torch averages every buffer if it is told ``use_buffers=True``, and fails at boolean ones, as
    masks are: ``AveragedModel(net, multi_avg_fn=masks_copied(), use_buffers=True)`` does not.
    mmengine's averages (``EMAHook``) need no such help.

    Args:
        average: As torch's ``multi_avg_fn``, for instance that of ``get_ema_multi_avg_fn``;
            ``None``: the equal average of SWA.

    Returns:
        A function for ``multi_avg_fn``.
    """
    average = average or get_swa_multi_avg_fn()

    @torch.no_grad()
    def copy_or_average(averaged: Sequence[Tensor], current: Sequence[Tensor], number: Any) -> None:
        kind = averaged[0].dtype  # torch hands over tensors of one type at a time
        if kind.is_floating_point or kind.is_complex:
            average(averaged, current, number)
            return
        for into, value in zip(averaged, current, strict=True):
            into.copy_(value)

    return copy_or_average
