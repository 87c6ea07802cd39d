"""Zeros of the regime matrix: how they are made, and how many of them a state dict has lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle

import torch
from torch import Tensor, nn

from mmsw.sparsity import lost_zeros

DENSE = 'dense'
_HEAD = 'head'


def _whole_filters(weight: Tensor) -> Tensor:
    norms = weight.flatten(1).norm(dim=1)
    return (norms > norms.median()).view(-1, *[1] * (weight.ndim - 1)).expand_as(weight)


def _two_of_four(weight: Tensor) -> Tensor:
    groups = weight.flatten(1).abs().unflatten(1, (-1, 4))
    places = groups.argsort(2).argsort(2)
    return (places >= 2).view_as(weight)


def _single_weights(weight: Tensor) -> Tensor:
    return weight.abs() > weight.abs().median()


_KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    'filter': _whole_filters,
    '2:4': _two_of_four,
    'weight': _single_weights,
}


@torch.no_grad()
def make_zeros(net: nn.Module) -> dict[str, str]:
    """Set half of the weights of three layers out of four to zero, by magnitude.

    The layers take turns: whole filters, two of each four consecutive weights of a filter, single
    weights, nothing. The first layer and the classifier stay dense, as is the custom. Nothing tells
    the network what was done: its masks, if it has any, still keep everything.

    Args:
        net: A network; changed in place.

    Returns:
        What was done, by name of the layer: ``'filter'``, ``'2:4'``, ``'weight'`` or ``'dense'``.
    """
    layers = [
        (name.removesuffix('.weight'), weight)
        for name, weight in net.named_parameters()
        if name.endswith('.weight') and weight.ndim > 1 and not name.startswith(_HEAD)
    ]
    done = {}
    for (name, weight), pattern in zip(layers[1:], cycle([*_KEPT, DENSE]), strict=False):
        if pattern == '2:4' and weight[0].numel() % 4:
            pattern = 'weight'
        if pattern != DENSE:
            weight.masked_fill_(~_KEPT[pattern](weight), 0.0)
        done[name] = pattern
    return done


@torch.no_grad()
def liven(net: nn.Module) -> None:
    """Give every bias a positive value, as training would give to many.

    A filter of zeros answers with its bias. Behind a ReLU, with a bias of zero, it gets no gradient
    and stays as it is without anybody's help.
    """
    for name, parameter in net.named_parameters():
        if name.endswith('.bias'):
            nn.init.uniform_(parameter, 0.05, 0.2)


def kept_weights(state: Mapping[str, Tensor], done: Mapping[str, str]) -> dict[str, Tensor]:
    """Where the weights of a start are not zero, by name of the layer, for the layers with zeros.

    Args:
        state: State dict of the network as :func:`make_zeros` left it.
        done: What that returned.
    """
    return {
        name: state[f'{name}.weight'] != 0 for name, pattern in done.items() if pattern != DENSE
    }


def num_lost(state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> int:
    """Zeros of the start that a state dict has lost; its names may begin with ``module.``."""
    return sum(lost_zeros(state, kept).values())


def num_whole(state: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> int:
    """Layers of a state dict that have all of their zeros."""
    return len(kept) - len(lost_zeros(state, kept))


def least_moved(
    state: Mapping[str, Tensor], start: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> float:
    """Share of the weights that were not zero and have changed, in the layer with the least."""
    shares = []
    for name, mask in kept.items():
        now, before = state[f'{name}.weight'].cpu(), start[f'{name}.weight']
        shares.append(float((now != before)[mask].float().mean()))
    return min(shares)
