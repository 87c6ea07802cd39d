"""What several processes of a training agree on: means of tensors, and one choice of masks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmsw.sparsity import masked_layers, masks, set_masks
from mmsw.sparsity.attach import attach_mask


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
def masks_of_main_process(chosen: dict[str, Tensor]) -> dict[str, Tensor]:
    """The masks that the main process has chosen; the others give any of the same shapes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return chosen
    flat = torch.cat([mask.flatten().to(torch.uint8) for mask in chosen.values()])
    dist.broadcast(flat, 0)
    parts = flat.bool().split([mask.numel() for mask in chosen.values()])
    return {
        name: part.view(mask.shape)
        for (name, mask), part in zip(chosen.items(), parts, strict=True)
    }


def share_masks(net: nn.Module) -> None:
    """Give a network in every process the masks, and the masked layers, of the main process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    names = [[name for name, _ in masked_layers(net)]]
    dist.broadcast_object_list(names, 0)
    for name in names[0]:
        attach_mask(net.get_submodule(name))
    found = masks(net)
    shared = masks_of_main_process({name: found[name] for name in names[0]})
    set_masks(net, {name: shared.get(name, torch.ones_like(mask)) for name, mask in found.items()})
