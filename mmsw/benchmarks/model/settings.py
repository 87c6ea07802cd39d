"""What a run of the benchmark of whole networks covers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..sizes import TimingSettings
from .networks import EVAL, MODES

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}


@dataclass(frozen=True)
class ModelSettings(TimingSettings):
    """What a run covers, beyond :class:`TimingSettings`.

    Attributes:
        modes: Of ``'eval'`` and ``'training step'``.
        dtypes: Names of what weights and maps hold. A training step has float32 alone.
        limit: Seconds that a call may take; who would take longer is left out.
        rounds: Most samples of a row.
        least: Fewest samples of a row.
        budget: Seconds to spend on a row beyond its fewest samples.
        main: Only the networks and forms of a quick run.
    """

    modes: tuple[str, ...] = MODES
    dtypes: tuple[str, ...] = ('float32',)
    limit: float = 20.0
    rounds: int = 15
    least: int = 3
    budget: float = 6.0
    main: bool = False

    needed = ('crops', 'batches', 'modes', 'dtypes')

    def check(self) -> None:
        """See that every value can be measured; raises ``ValueError``."""
        super().check()
        for name, known in (('modes', MODES), ('dtypes', tuple(DTYPES))):
            for value in getattr(self, name):
                if value not in known:
                    raise ValueError(f'{name} must be of {known}, got {value!r}')
        if EVAL not in self.modes and 'float32' not in self.dtypes:
            raise ValueError(f'a training step is measured in float32, got dtypes {self.dtypes}')
        if not 0 < self.limit < float('inf'):
            raise ValueError(f'limit must be a positive number of seconds, got {self.limit}')


PRESETS = {
    'default': ModelSettings(),
    'quick': ModelSettings(
        crops=(512,), batches=(1,), limit=6.0, rounds=7, least=2, budget=1.5, main=True
    ),
}
