"""Gradients of the loss on real batches, before training, that leave no trace."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
import torch.distributed as dist
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from mmsw.errors import SparsityError
from mmsw.random_state import preserved_random_state
from mmsw.wording import short

from .agreement import mean_over_processes
from .model_wrapper import unwrapped


def batch_gradients(
    runner: Runner,
    names: Iterable[str],
    num_batches: int,
    seed: int,
    random_depth: bool = True,
) -> dict[str, Tensor]:
    """Mean gradient of the training loss by the weights of masked layers, in full precision.

    Pruned weights get the gradient that they would have without their mask. A copy of the model is
    looked at, so that the model, the random generators and the training data loader are as before
    afterwards. The copy and its gradients take twice the memory of the weights, which is given back
    before the optimizer needs as much. The batches are drawn from the training data with a
    generator of their own; several processes draw different ones and share the mean.

    Args:
        runner: A runner whose training has not begun.
        names: Of masked layers of the model.
        num_batches: Batches per process, at least one; their size is that of the training loader.
        seed: Of the choice of images, their augmentation and random depth.
        random_depth: Skip blocks at random, as training does.

    Returns:
        By layer name, of the weights' shape; zero for a layer that does not take part in the loss.

    Raises:
        SparsityError: If the data set has no length to draw from, or the model cannot be copied.
    """
    batches = _batches(runner, num_batches, seed)
    model = _copied(unwrapped(runner.model)).train()
    for module in model.modules():
        if not random_depth and hasattr(module, 'drop_prob'):
            module.eval()
    layers = {name: model.get_submodule(name) for name in names}
    for layer in layers.values():
        layer.mask.fill_(True)  # what it pruned is zero
    with preserved_random_state(seed + runner.rank):
        for samples in batches():
            data = model.data_preprocessor(samples, True)
            losses = model._run_forward(data, mode='loss')
            loss, _ = model.parse_losses(losses)
            loss.backward()
    gradients = {
        name: torch.zeros_like(la.weight) if la.weight.grad is None else la.weight.grad
        for name, la in layers.items()
    }
    return mean_over_processes({name: grad / num_batches for name, grad in gradients.items()})


def _copied(model: nn.Module) -> nn.Module:
    """A copy of a model, without gradients; process groups are shared, no program can copy one."""
    shared = {}
    if dist.is_available():
        attributes = (value for module in model.modules() for value in vars(module).values())
        shared = {id(value): value for value in attributes if isinstance(value, dist.ProcessGroup)}
    try:
        copied = copy.deepcopy(model, shared)
    except Exception as error:  # whatever the parts of a model may raise
        raise SparsityError(
            f"start='snip' looks at the gradients of a copy, and {type(model).__name__} cannot be "
            f"copied ({short(error)}). Choose start='erk' or 'uniform', or give the part that "
            'cannot be copied a method __deepcopy__'
        ) from error
    copied.zero_grad()
    return copied


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
