"""What a run of the operator benchmark covers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..measure import usable_cpus
from ..sizes import TimingSettings

_VERSIONS = ('v1', 'v2')
FEW_SPARSITIES = (0.0, 0.7)


@dataclass(frozen=True)
class BenchmarkSettings(TimingSettings):
    """What a run covers, beyond :class:`TimingSettings`.

    Attributes:
        versions: Generations of the network, of ``'v1'`` and ``'v2'``.
        sparsities: Shares of pruned filters of the sweep, with one repetition. From the second
            batch size on it has those of ``FEW_SPARSITIES`` only. With the repetitions of the
            network, the first batch size has these and the largest share, for the backends alone.
        dtypes: What the maps and kernels hold; types of half precision are for the backends alone.
        rounds: Most samples of a row.
        budget: Seconds to spend on a row.
        few: Only the backends, other runtimes, slices, the SLaK pair and 7x7.
    """

    versions: tuple[str, ...] = _VERSIONS
    sparsities: tuple[float, ...] = tuple(tenth / 10 for tenth in range(10))
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    rounds: int = 11
    budget: float = 2.0
    few: bool = False

    needed = ('versions', 'crops', 'batches')

    def check(self) -> None:
        """See that every value can be measured; raises ``ValueError``."""
        super().check()
        for version in self.versions:
            if version not in _VERSIONS:
                raise ValueError(f'versions must be of {_VERSIONS}, got {version!r}')
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
