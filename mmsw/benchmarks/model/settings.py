"""What a run of the benchmark of whole networks covers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..sizes import check_sizes
from .networks import MODES

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
NAMED = ('crops', 'batches', 'threads', 'modes', 'dtypes', 'only', 'limit')


@dataclass(frozen=True)
class ModelSettings:
    """What a run covers.

    Attributes:
        crops: Sides of the image, in pixels.
        batches: Images of a call.
        threads: Threads of torch; ``()`` for as many as torch uses by itself.
        modes: Of ``'eval'`` and ``'training step'``.
        dtypes: Names of what weights and maps hold. A training step has float32 alone.
        only: Parts of the names of the contenders to measure; ``()`` for all.
        limit: Seconds that a call may take; who would take longer is left out.
        rounds: Most samples of a row.
        least: Fewest samples of a row.
        budget: Seconds to spend on a row beyond its fewest samples.
        main: Only the networks and forms of a quick run.
    """

    crops: tuple[int, ...] = (224, 512)
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = ()
    modes: tuple[str, ...] = MODES
    dtypes: tuple[str, ...] = ('float32',)
    only: tuple[str, ...] = ()
    limit: float = 20.0
    rounds: int = 15
    least: int = 3
    budget: float = 6.0
    main: bool = False

    def takes(self, name: str) -> bool:
        """Whether a contender is to be measured."""
        return not self.only or any(part.lower() in name.lower() for part in self.only)

    def check(self) -> None:
        """See that every value can be measured; raises ``ValueError``."""
        for name in ('crops', 'batches', 'modes', 'dtypes'):
            if not getattr(self, name):
                raise ValueError(f'{name} must name at least one value')
        check_sizes(self.crops, self.batches, self.threads)
        for name, known in (('modes', MODES), ('dtypes', tuple(DTYPES))):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f'{name} must be of {known}, got {value!r}')
        if not 0 < self.limit < float('inf'):
            raise ValueError(f'limit must be a positive number of seconds, got {self.limit}')


PRESETS = {
    'default': ModelSettings(),
    'quick': ModelSettings(
        crops=(512,), batches=(1,), limit=4.0, rounds=7, least=2, budget=1.5, main=True
    ),
}
