"""Gradients by the plain form of a function that has a gradient of its own.

Such a gradient cannot be differentiated again, and runs compiled operators that know no batches of
gradients. Then autograd follows the plain form instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .backends import needs_plain_operators


def needs_plain_grads(*grads: Tensor | None) -> bool:
    """Whether a gradient is differentiated again, or is a batch of them, or is transformed."""
    if torch.is_grad_enabled() or needs_plain_operators(None):
        return True
    functions = torch._C._functorch
    kinds = functions.is_batchedtensor, functions.is_legacy_batchedtensor
    given = [grad for grad in grads if grad is not None]
    return any(is_kind(grad) for is_kind in kinds for grad in given)


def plain_grads(
    form: Callable[..., Tensor | tuple[Tensor, ...]],
    tensors: Sequence[Tensor | None],
    wanted: Sequence[bool],
    *grads: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of some tensors, differentiable themselves where gradients are on.

    Args:
        form: The plain form, which is called with the tensors.
        tensors: Its arguments.
        wanted: Which of them get a gradient.
        grads: Of its results.

    Returns:
        One for each tensor, ``None`` where none is wanted.
    """
    again = torch.is_grad_enabled()
    places = [i for i, asked in enumerate(wanted) if asked]
    with torch.enable_grad():
        out = form(*tensors)
    found = torch.autograd.grad(
        out, [tensors[i] for i in places], grads, create_graph=again, allow_unused=True
    )
    results: list[Tensor | None] = [None] * len(tensors)
    for i, grad in zip(places, found, strict=True):
        results[i] = grad
    return results
