"""What SNIP measures, measured another way: on the model of a run itself, which changes by that."""

from __future__ import annotations

import torch
from mmengine.runner import Runner
from torch import Tensor

from mmsw.engine.agreement import mean_over_processes
from mmsw.engine.model_wrapper import unwrapped
from mmsw.random_state import preserved_random_state
from mmsw.sparsity import DenseGradients, masked_layers


def gradients_in_place(runner: Runner, num_batches: int, seed: int) -> dict[str, Tensor]:
    """Mean dense gradients by layer, seen by hooks in the model while its masks prune."""
    model, loader = unwrapped(runner.model), runner.train_dataloader
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(loader.dataset), generator=generator).tolist()
    start = runner.rank * num_batches * loader.batch_size
    recorder = DenseGradients(dict(masked_layers(model)))
    recorder.watch()
    model.train()
    with preserved_random_state(seed + runner.rank):
        for _ in range(num_batches):
            chosen = [order[i % len(order)] for i in range(start, start + loader.batch_size)]
            start += loader.batch_size
            samples = loader.collate_fn([loader.dataset[index] for index in chosen])
            data = model.data_preprocessor(samples, True)
            model._run_forward(data, mode='loss')['loss'].backward()
    recorder.stop()
    return mean_over_processes({name: total / num_batches for name, total in recorder.sums.items()})
