"""What is called ``mask`` beside a ``weight`` without being a pruning mask: it is left alone."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmsw.errors import SparsityError

from .layer_masks import full_mask, masked_layers

_MASK = '.mask'


@contextmanager
def foreign_masks_aside(
    state: MutableMapping[str, Any], net: nn.Module, prefix: str = ''
) -> Iterator[list[str]]:
    """Inside, a state dict lacks its entries ``X.mask`` that are no pruning masks.

    These are the masks that a layer of the network has for purposes of its own (a causal
    convolution, for instance), and whatever is no mask of the weight beside it where the network
    has no masked layer. Afterwards those that the network has a place for are back. The others stay
    out, as a warning should say.

    Args:
        state: State dict; changed in place.
        net: The network that it goes into.
        prefix: Of the state dict's keys that belong to the network.

    Yields:
        What is wrong with those that stay out, one line each.
    """
    own, ours = net.state_dict(), {name for name, _ in masked_layers(net)}
    aside, problems = {}, []
    for key in [key for key in state if key.startswith(prefix) and key.endswith(_MASK)]:
        name = key.removeprefix(prefix).removesuffix(_MASK)
        if name in ours:
            continue
        if name + _MASK in own:
            aside[key] = state.pop(key)
        elif problem := _problem(state, key):
            del state[key]
            problems.append(problem)
    try:
        yield problems
    finally:
        state.update(aside)


def _problem(state: MutableMapping[str, Any], key: str) -> str | None:
    """Why an entry is no mask of the weight beside it, where there is one."""
    weight = state.get(f'{key.removesuffix(_MASK)}.weight')
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        return None
    try:
        full_mask(state[key], weight, key)
    except SparsityError as error:
        return str(error)
    return None
