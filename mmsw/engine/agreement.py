"""What several processes of a training agree on: means of tensors, and one choice of masks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def mean_over_processes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean over all processes of tensors of the same names and shapes; one exchange for all."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return tensors
    flat = torch.cat([tensor.flatten().float() for tensor in tensors.values()])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([tensor.numel() for tensor in tensors.values()])
    return {
        name: part.view(tensor.shape)
        for (name, tensor), part in zip(tensors.items(), parts, strict=True)
    }


@torch.no_grad()
def masks_of_main_process(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """The masks that the main process has chosen; the others give any of the same shapes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return masks
    flat = torch.cat([mask.flatten().to(torch.uint8) for mask in masks.values()])
    dist.broadcast(flat, 0)
    parts = flat.bool().split([mask.numel() for mask in masks.values()])
    return {
        name: part.view(mask.shape) for (name, mask), part in zip(masks.items(), parts, strict=True)
    }
