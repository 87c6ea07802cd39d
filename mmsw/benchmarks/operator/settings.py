"""What a run of the operator benchmark covers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..measure import usable_cpus
from ..sizes import check_sizes

_VERSIONS = ('v1', 'v2')
_CROPS = (224, 512)
FEW_SPARSITIES = (0.0, 0.7)
NAMED = ('versions', 'crops', 'batches', 'threads', 'sparsities', 'only')


@dataclass(frozen=True)
class BenchmarkSettings:
    """What a run covers.

    Attributes:
        versions: Generations of the network, of ``'v1'`` and ``'v2'``.
        crops: Sides of the image, in pixels.
        batches: Batch sizes.
        threads: Threads of torch; ``()`` for as many as torch uses by itself.
        sparsities: Shares of pruned filters of the sweep, with one repetition. From the second
            batch size on it has those of ``FEW_SPARSITIES`` only.
        dtypes: What the maps and kernels hold; types of half precision are for the backends alone.
        rounds: Most samples of a row.
        budget: Seconds to spend on a row.
        few: Only the backends, other runtimes, slices, the SLaK pair and 7x7.
        only: Parts of the names of the contenders to measure; ``()`` for all.
    """

    versions: tuple[str, ...] = _VERSIONS
    crops: tuple[int, ...] = _CROPS
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = ()
    sparsities: tuple[float, ...] = tuple(tenth / 10 for tenth in range(10))
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    rounds: int = 11
    budget: float = 2.0
    few: bool = False
    only: tuple[str, ...] = ()

    def takes(self, name: str) -> bool:
        """Whether a contender is to be measured."""
        return not self.only or any(part.lower() in name.lower() for part in self.only)

    def check(self) -> None:
        """See that every value can be measured; raises ``ValueError``."""
        for name in NAMED:
            if not getattr(self, name) and name not in ('threads', 'sparsities', 'only'):
                raise ValueError(f'{name} must name at least one value')
        for version in self.versions:
            if version not in _VERSIONS:
                raise ValueError(f'versions must be of {_VERSIONS}, got {version!r}')
        check_sizes(self.crops, self.batches, self.threads)
        for sparsity in self.sparsities:
            if not 0 <= sparsity < 1:
                raise ValueError(f'sparsities must be in [0, 1), got {sparsity}')


PRESETS = {
    'default': BenchmarkSettings(),
    'quick': BenchmarkSettings(
        versions=('v2',),
        crops=(512,),
        batches=(1,),
        sparsities=(0.0, 0.7, 0.9),
        rounds=7,
        budget=0.3,
        few=True,
    ),
    'full': BenchmarkSettings(batches=(1, 2, 8), threads=tuple(sorted({1, min(2, usable_cpus())}))),
}
