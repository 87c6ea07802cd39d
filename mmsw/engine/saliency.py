"""Gradients of the loss on real batches, before training, that leave no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from mmsw.errors import SparsityError
from mmsw.random_state import preserved_random_state
from mmsw.sparsity import DenseGradients

from .agreement import mean_over_processes


def gradients_of_all(
    model: nn.Module,
    loader: DataLoader,
    recorder: DenseGradients,
    num_batches: int,
    seed: int,
    rank: int = 0,
) -> dict[str, Tensor]:
    """As :func:`loader_gradients`; once more without random depth where that skipped layers."""
    arguments = model, loader, recorder, num_batches, seed, rank
    gradients = loader_gradients(*arguments)
    if all(bool(gradient.any()) for gradient in gradients.values()):
        return gradients
    return loader_gradients(*arguments, random_depth=False)


def loader_gradients(
    model: nn.Module,
    loader: DataLoader,
    recorder: DenseGradients,
    num_batches: int,
    seed: int,
    rank: int = 0,
    random_depth: bool = True,
) -> dict[str, Tensor]:
    """Mean gradient of the training loss by the weights of masked layers, in full precision.

    Pruned weights get the gradient that they would have without their mask. The model, the random
    generators and the training data loader are as before afterwards. The batches are drawn from the
    training data with a generator of their own; several processes draw different ones and share the
    mean.

    Args:
        model: A model of mmengine, without wrapper.
        loader: Of training data; it is not iterated.
        recorder: Of the masked layers. It is paused afterwards and its sums are empty; its hooks
            stay, because a forward pass that is compiled here may keep them.
        num_batches: Batches per process, at least one; their size is that of the training loader.
        seed: Of the choice of images, their augmentation and random depth.
        rank: Of this process; every process draws other images.
        random_depth: Skip blocks at random, as training does.

    Returns:
        By layer name, of the weights' shape; zero for a layer that does not take part in the loss.

    Raises:
        SparsityError: If the data set has no length to draw from.
    """
    batches = _batches(loader, num_batches, seed, rank)
    recorder.watch()
    try:
        with _left_as_it_was(model), preserved_random_state(seed + rank):
            model.train()
            for module in model.modules():
                if not random_depth and hasattr(module, 'drop_prob'):
                    module.eval()
            for samples in batches():
                data = model.data_preprocessor(samples, True)
                losses = model._run_forward(data, mode='loss')
                loss, _ = model.parse_losses(losses)
                loss.backward()
    finally:
        recorder.pause()
        sums, recorder.sums = recorder.sums, {}
    gradients = {
        name: sums.get(name, torch.zeros_like(layer.weight)) / num_batches
        for name, layer in recorder.layers.items()
    }
    return mean_over_processes(gradients)


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Give a model its gradients, parameters, buffers, modes and other attributes of modules back.

    It is no copy: functions may be bound to the model itself, a checkpointed ``forward`` is.
    Gradients are ``None`` inside.
    """
    modules = [(m, dict(vars(m)), list(m._buffers.items())) for m in model.modules()]
    values = [(t, t.detach().clone()) for t in chain(model.parameters(), model.buffers())]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for module, attributes, buffers in modules:
            vars(module).clear()
            vars(module).update(attributes)
            for name, buffer in buffers:
                module._buffers[name] = buffer
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _batches(loader: DataLoader, num_batches: int, seed: int, rank: int):
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, '__len__'):
        raise SparsityError(
            'SNIP draws batches from the training data, which need a length; for an iterable data '
            "set choose start='erk' or 'uniform', or by='magnitude' of other pruning"
        )
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    first = rank * num_batches * size

    def batches():
        for number in range(num_batches):
            start = first + number * size
            chosen = [order[i % len(order)] for i in range(start, start + size)]
            yield loader.collate_fn([dataset[i] for i in chosen])

    return batches
