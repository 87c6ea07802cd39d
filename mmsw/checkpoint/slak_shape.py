"""What kind of SLaK network a state dict is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .shape import StateShape

KERNEL = re.compile(
    r'^stages\.(\d+)\.(\d+)\.large_kernel\.(vertical|horizontal|square|small)\.conv\.weight$'
)


@dataclass(frozen=True)
class SLaKShape(StateShape):
    """What the tensors of a SLaK network tell about it.

    Attributes:
        depths: Blocks per stage.
        dims: Channels per stage.
        big_kernels: Long side M of the large kernel, per stage.
        small_kernel: Short side N.
        decomposed: Whether the large kernels are M x N and N x M.
    """

    family: ClassVar = 'SLaK'
    kind: ClassVar = 'SLaK network'
    example: ClassVar = 'stages.0.0.large_kernel.small.conv.weight'
    compared: ClassVar = ('depths', 'dims', 'big_kernels', 'small_kernel', 'decomposed')
    num_paths: ClassVar = 1  # nothing runs in parallel sets, unlike in a shift-wise layer

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    big_kernels: tuple[int, ...]
    small_kernel: int
    decomposed: bool

    @classmethod
    def _of(cls, state: Mapping[str, Tensor]) -> SLaKShape:
        found = [match for match in map(KERNEL.match, state) if match]
        stages = sorted({int(match[1]) for match in found})
        blocks = {s: {int(m[2]) for m in found if int(m[1]) == s} for s in stages}
        decomposed = not any(match[3] == 'square' for match in found)
        large = 'vertical' if decomposed else 'square'
        firsts = [f'stages.{s}.{min(blocks[s])}.large_kernel.' for s in stages]
        weights = [state[f'{first}{large}.conv.weight'] for first in firsts]
        return cls(
            depths=tuple(len(blocks[s]) for s in stages),
            dims=tuple(weight.shape[0] for weight in weights),
            big_kernels=tuple(weight.shape[2] for weight in weights),
            small_kernel=state[f'{firsts[0]}small.conv.weight'].shape[2],
            decomposed=decomposed,
        )

    def __str__(self) -> str:
        form = 'M x N and N x M' if self.decomposed else 'M x M'
        return (
            f'SLaK, depths {self.depths}, dims {self.dims}, large kernels {form} with '
            f'M = {self.big_kernels}, N = {self.small_kernel}'
        )
