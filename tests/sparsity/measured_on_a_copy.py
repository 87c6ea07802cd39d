"""What SNIP measures, measured another way: on a copy of the model the masks of which are open."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from mmengine.runner import Runner
from torch import Tensor

from mmsw.engine.agreement import mean_over_processes
from mmsw.engine.model_wrapper import unwrapped
from mmsw.random_state import preserved_random_state
from mmsw.sparsity import masked_layers


def gradients_of_a_copy(runner: Runner, num_batches: int, seed: int) -> dict[str, Tensor]:
    """Mean dense gradients by layer: what is pruned is zero, so open masks change no output."""
    group = dist.group.WORLD if dist.is_initialized() else None  # it cannot be copied
    model = copy.deepcopy(unwrapped(runner.model), {id(group): group}).train()
    model.zero_grad()
    layers = dict(masked_layers(model))
    for layer in layers.values():
        layer.mask.fill_(True)
    loader = runner.train_dataloader
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(loader.dataset), generator=generator).tolist()
    start = runner.rank * num_batches * loader.batch_size
    with preserved_random_state(seed + runner.rank):
        for _ in range(num_batches):
            chosen = [order[i % len(order)] for i in range(start, start + loader.batch_size)]
            start += loader.batch_size
            samples = loader.collate_fn([loader.dataset[index] for index in chosen])
            data = model.data_preprocessor(samples, True)
            model._run_forward(data, mode='loss')['loss'].backward()
    return mean_over_processes({n: la.weight.grad / num_batches for n, la in layers.items()})
