"""What is pruned stays zero in every file that a run writes: looked at before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmsw.errors import SparsityLostError
from mmsw.sparsity import lost_zeros, masks

_STATE_DICTS = ('state_dict', 'ema_state_dict')


class ZerosGuard:
    """Remembers which weights of a network are pruned, and looks at tensors for those that moved.

    Attributes:
        masks: By layer name; True = kept.
    """

    def __init__(self) -> None:
        self.masks: dict[str, Tensor] = {}

    def remember(self, net: nn.Module) -> None:
        """Take the masks of a network as those that must hold from now on."""
        self.masks = masks(net)

    def check(self, state: Mapping[str, Tensor], where: str) -> None:
        """Look at the weights of a state dict.

        Args:
            state: State dict of the network.
            where: What it is, for the message.

        Raises:
            SparsityLostError: If a pruned weight is not zero.
        """
        lost = lost_zeros(state, self.masks)
        if lost:
            examples = ', '.join(f'{name} ({count})' for name, count in list(lost.items())[:3])
            raise SparsityLostError(
                f'{sum(lost.values())} pruned weights in {len(lost)} layers are not zero {where}: '
                f'{examples}. Nothing was written. Something changed weights or masks behind the '
                'layers; set masks with mmsw.sparsity.set_masks only, and give it the optimizers: '
                'they remember the past of what is pruned'
            )

    def check_checkpoint(self, checkpoint: Mapping[str, Any], iteration: int) -> None:
        """Look at every set of weights of a checkpoint that is about to be written.

        Raises:
            SparsityLostError: If a pruned weight is not zero, in the averaged weights too.
        """
        for name in _STATE_DICTS:
            if name in checkpoint:
                self.check(checkpoint[name], f'in {name} at iteration {iteration}')
