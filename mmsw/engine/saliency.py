"""Gradients of the loss on real batches, before training, that leave no trace."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from mmsw.errors import SparsityError
from mmsw.random_state import preserved_random_state
from mmsw.sparsity import DenseGradients

from .agreement import mean_over_processes
from .model_wrapper import unwrapped


def batch_gradients(
    runner: Runner,
    layers: Mapping[str, nn.Module],
    num_batches: int,
    seed: int,
    random_depth: bool = True,
) -> dict[str, Tensor]:
    """Mean gradient of the training loss by the weights of layers, in full precision.

    The batches are drawn from the training data with a generator of their own; several processes
    draw different ones and share the mean. Running statistics, gradients, random generators and the
    training data loader are as before afterwards.

    Args:
        runner: A runner whose training has not begun.
        layers: Masked layers by name.
        num_batches: Batches per process, at least one; their size is that of the training loader.
        seed: Of the choice of images, their augmentation and random depth.
        random_depth: Skip blocks at random, as training does.

    Returns:
        By layer name, of the weights' shape; zero for a layer that does not take part in the loss.

    Raises:
        SparsityError: If the data set has no length to draw from.
    """
    model = unwrapped(runner.model)
    batches = _batches(runner, num_batches, seed)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training = [(module, module.training) for module in model.modules()]
    recorder = DenseGradients(layers)
    model.train()
    if not random_depth:
        for module, _ in training:
            if hasattr(module, 'drop_prob'):
                module.eval()
    recorder.watch()
    try:
        with preserved_random_state(seed + runner.rank):
            for samples in batches():
                data = model.data_preprocessor(samples, True)
                losses = model._run_forward(data, mode='loss')
                loss, _ = model.parse_losses(losses)
                loss.backward()
    finally:
        recorder.stop()
        for parameter in model.parameters():
            parameter.grad = None
        for module, mode in training:
            module.training = mode
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    gradients = {
        name: recorder.sums.get(name, torch.zeros_like(layer.weight)) / num_batches
        for name, layer in layers.items()
    }
    return mean_over_processes(gradients)


def _batches(runner: Runner, num_batches: int, seed: int):
    loader = runner.train_dataloader
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, '__len__'):
        raise SparsityError(
            "start='snip' draws batches from the training data, which need a length; choose "
            "start='erk' or 'uniform' for an iterable data set"
        )
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    first = runner.rank * num_batches * size

    def batches():
        for number in range(num_batches):
            start = first + number * size
            chosen = [order[i % len(order)] for i in range(start, start + size)]
            yield loader.collate_fn([dataset[i] for i in chosen])

    return batches
