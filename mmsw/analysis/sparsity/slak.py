"""What the large kernels of a SLaK checkpoint keep, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmsw.checkpoint.slak_shape import KERNEL, SLaKShape
from mmsw.errors import CheckpointError
from mmsw.sparsity import Density

from .layers import MaskedNetwork, counted_parameters


@dataclass(frozen=True)
class SLaKLayer:
    """The large kernel of a block of SLaK as far as pruning matters.

    Attributes:
        stage: Number of its stage, from 0.
        block: Number of its block in the stage, from 0.
        masks: Which weights each branch keeps, boolean ``[C, rows, columns]``.
        small_kernel: Short side N.
        pointwise: Weights of the two pointwise layers of its block.
    """

    stage: int
    block: int
    masks: dict[str, Tensor] = field(repr=False)
    small_kernel: int
    pointwise: int = 0

    @property
    def name(self) -> str:
        """Short name, ``STAGE.BLOCK``."""
        return f'{self.stage}.{self.block}'

    @property
    def filters(self) -> Tensor:
        """Which blocks of N x N keep a weight, boolean, branch by branch and block by block."""
        blocks = (
            block for mask in self.masks.values() for _, block in blocks_of(mask, self.small_kernel)
        )
        return torch.cat([block.flatten(1).any(1) for block in blocks])

    @property
    def weights(self) -> Tensor:
        """Which weights are kept, boolean, branch by branch."""
        return torch.cat([mask.flatten() for mask in self.masks.values()])

    @property
    def paths(self) -> tuple[Density, ...]:
        """What is kept, blocks and weights; there is one path."""
        kept, weights = self.filters, self.weights
        return (Density(int(kept.sum()), len(kept), int(weights.sum()), len(weights)),)

    def used_weights(self) -> dict[str, int]:
        """Weights by branch in blocks of N x N that keep any; the last block of a side is cut."""
        n = self.small_kernel
        return {
            branch: sum(
                int(blocks.flatten(1).any(1).sum()) * blocks[0].numel()
                for _, blocks in blocks_of(mask, n)
            )
            for branch, mask in self.masks.items()
        }


def blocks_of(mask: Tensor, side: int) -> Iterator[tuple[int, Tensor]]:
    """Blocks of N x N of a kernel, those at the end of a side as large as the kernel leaves them.

    Args:
        mask: Mask ``[C, rows, columns]``.
        side: Side N.

    Yields:
        Distance of the middle of the block from the centre of the kernel, along the axis where it
        is farther, with its sign; the block ``[C, <=N, <=N]``.
    """
    rows, columns = mask.shape[1:]
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            offsets = (top + side // 2 - rows // 2, left + side // 2 - columns // 2)
            yield max(offsets, key=abs), mask[:, top : top + side, left : left + side]


def read_slak(state: Mapping[str, Tensor], source: str) -> MaskedNetwork:
    """Find the large kernels in a state dict.

    Args:
        state: State dict of a backbone in this project's names and without prefix, masks included,
            as :func:`mmsw.checkpoint.to_state_dict` returns it.
        source: Its name, for messages.

    Raises:
        CheckpointError: If tensors are missing or do not fit each other.
    """
    shape = SLaKShape.of(state, source)
    try:
        layers = tuple(
            _layer(state, shape, stage, block)
            for stage, depth in enumerate(shape.depths)
            for block in range(depth)
        )
    except KeyError as error:
        raise CheckpointError(f'{source} is incomplete: it has no tensor {error}') from error
    parameters = counted_parameters(state)
    return MaskedNetwork(
        source, shape, layers, shape.big_kernels, 1, (_elsewhere(state),), parameters
    )


def _layer(state: Mapping[str, Tensor], shape: SLaKShape, stage: int, block: int) -> SLaKLayer:
    prefix = f'stages.{stage}.{block}.'
    large = ('vertical', 'horizontal') if shape.decomposed else ('square',)
    masks = {}
    for branch in (*large, 'small'):
        name = f'{prefix}large_kernel.{branch}.conv'
        weight = state[f'{name}.weight']
        masks[branch] = state.get(f'{name}.mask', weight == weight).squeeze(1)
    pointwise = sum(state[f'{prefix}pointwise_conv{i}.weight'].numel() for i in (1, 2))
    return SLaKLayer(stage, block, masks, shape.small_kernel, pointwise)


def _elsewhere(state: Mapping[str, Tensor]) -> str:
    """How much of the other layers is pruned."""
    weights = {
        key.removesuffix('weight'): weight
        for key, weight in state.items()
        if key.endswith('.weight') and weight.ndim > 1 and not key.startswith('head.')
        and not KERNEL.match(key)
    }  # fmt: skip
    every = sum(weight.numel() for weight in weights.values())
    masks = [state[f'{name}mask'] for name in weights if f'{name}mask' in state]
    pruned = sum(int((~mask).sum()) for mask in masks)
    return f'pruned in all other layers together: {pruned:,} of {every:,} weights'
