"""Small depthwise kernels that own their pruning mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmsw.errors import SparsityError
from mmsw.ops.pattern import newer_version
from mmsw.sparsity.layer_masks import full_mask, set_mask


class MaskedFilters(nn.Module):
    """Weight of one path of a shift-wise layer together with a boolean mask.

    Pruned weights are exactly zero, take part as zero, and get a gradient of exactly zero (whatever
    the incoming gradient is), so momentum, weight decay, averaging and mixed precision leave them
    at zero. The mask is saved with the weight. When a state dict brings a weight without a mask, as
    published checkpoints do, its exact zeros become the mask: whole filters or single weights, as
    found. A saved mask may be numbers (0 and 1), or one per filter.

    Args:
        num_filters: Small kernels, ``C * nk``.
        small_kernel: Side N of a kernel.
    """

    mask: Tensor
    _version = 1

    def __init__(self, num_filters: int, small_kernel: int) -> None:
        super().__init__()
        shape = (num_filters, 1, small_kernel, small_kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_buffer('mask', torch.ones(shape, dtype=torch.bool))

    def forward(self) -> Tensor:
        """Weight with exact zeros where it is pruned, ``[C * nk, 1, N, N]``."""
        return torch.where(self.mask, self.weight, 0.0)

    def observe_gradients(self, observe: Callable[[Tensor], None]) -> RemovableHandle:
        """Call ``observe`` with the gradient before the mask; see ``masked_layers``."""
        return self.register_forward_hook(_OutputHook(observe))

    def is_observed(self) -> bool:
        """Whether a hook may ask for the gradient before the mask."""
        return bool(self._forward_hooks)

    def set_mask(self, mask: Tensor) -> None:
        """Prune to ``mask`` (True = keep): the mask is copied, pruned weights become zero at once.

        Args:
            mask: Boolean, ``[C * nk, 1, N, N]`` or ``[C * nk, 1, 1, 1]`` (whole filters).

        Raises:
            TypeError: If the mask is not boolean.
            ValueError: If it does not broadcast to the weight.
        """
        set_mask(self, mask)

    def extra_repr(self) -> str:
        filters, _, side, _ = self.weight.shape
        return f'num_filters={filters}, small_kernel={side}'

    def _load_from_state_dict(
        self,
        state_dict: dict,
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if problem := newer_version(self, local_metadata):
            error_msgs.append(f'layer "{prefix[:-1]}" {problem}')
            return
        weight = state_dict.get(f'{prefix}weight')
        mask = state_dict.get(f'{prefix}mask')
        fits = weight is not None and weight.shape == self.weight.shape
        if mask is None and fits:
            state_dict = {**state_dict, f'{prefix}mask': weight != 0}
        elif fits:
            try:
                mask = full_mask(mask, weight, f'{prefix}mask')
            except SparsityError as error:
                error_msgs.append(str(error))
                return
            state_dict = {**state_dict, f'{prefix}mask': mask}
            lost = int(torch.count_nonzero(weight[~mask]))
            if lost:
                print_log(
                    f'{prefix}weight has {lost} non-zero values where its mask prunes; they are '
                    'set to zero',
                    logger='current',
                    level=30,
                )
                state_dict = {**state_dict, f'{prefix}weight': weight.masked_fill(~mask, 0)}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if weight is None and mask is None:
            missing_keys[:] = [key for key in missing_keys if key != f'{prefix}mask']
        elif not fits:  # a mask alone: what it prunes is zero here too
            with torch.no_grad():
                self.weight.masked_fill_(~self.mask, 0.0)


class _OutputHook:
    """Hooks the weight that a layer gives out, before which its mask stands.

    In a copy of the layer, or a pickled one, it does nothing.
    """

    def __init__(self, observe: Callable[[Tensor], None] | None = None) -> None:
        self.observe = observe

    def __reduce__(self) -> tuple:
        return _OutputHook, ()

    def __call__(self, layer: nn.Module, args: tuple, out: Tensor) -> None:
        # A copy would be torn apart from its hook where activations are recomputed; the masked
        # weight itself is recomputed too, and hooked anew then.
        if self.observe is not None and out.requires_grad:
            out.register_hook(self.observe)
