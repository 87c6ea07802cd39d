"""Copies of models to change: the modules are new, the tensors are those of the model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

from torch import nn


def sharing_copy(model: nn.Module, without: Sequence[str] = ()) -> nn.Module:
    """A copy of a model whose modules can be replaced without changing the model.

    Args:
        model: Any model.
        without: Names of parts that the copy does not need.

    Returns:
        The copy in evaluation mode. It holds the parameters and buffers of the model themselves,
        so that it takes no memory of its own.
    """
    tensors = chain(model.parameters(), model.buffers())
    kept = {id(tensor): tensor for tensor in tensors}
    kept |= {id(part): None for name in without if (part := getattr(model, name, None)) is not None}
    return copy.deepcopy(model, kept).eval()
