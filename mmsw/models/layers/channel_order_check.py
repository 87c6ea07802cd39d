"""Whether what a state dict has for an order of channels is one."""

from __future__ import annotations

import torch
from torch import Tensor

from mmsw.errors import StateDictError


def check_channel_order(order: Tensor | None, channels: int, key: str) -> None:
    """Refuse what is no order of the channels.

    Raises:
        StateDictError: If it is none.
    """
    if order is None or not _is_permutation(order, channels):
        found = None if order is None else f'{order.dtype} {list(order.shape)}'
        raise StateDictError(
            f'{key} must be a permutation of {channels} channels, int64 [{channels}], got {found}'
        )


def _is_permutation(order: Tensor, channels: int) -> bool:
    if order.dtype not in (torch.int32, torch.int64) or tuple(order.shape) != (channels,):
        return False
    return order.is_meta or sorted(order.tolist()) == list(range(channels))
