"""Gradients of the loss on real batches, before training, that leave no trace."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from mmsw.random_state import preserved_random_state
from mmsw.sparsity import DenseGradients


def batch_gradients(
    runner: Runner, layers: Mapping[str, nn.Module], num_batches: int, seed: int
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

    Returns:
        By layer name, of the weights' shape; zero for a layer that does not take part in the loss.

    Raises:
        ValueError: If the data set has no length to draw from.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    batches = _batches(runner, num_batches, seed)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training = [(module, module.training) for module in model.modules()]
    recorder = DenseGradients(layers)
    model.train()
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
        raise ValueError(
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
