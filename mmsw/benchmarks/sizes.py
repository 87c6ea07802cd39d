"""What every timing of networks or their layers may be asked for: crops, batches and threads."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .measure import usable_cpus

_CROP_STEP = 32


def check_sizes(crops: Sequence[int], batches: Sequence[int], threads: Sequence[int]) -> None:
    """See that every size can be measured.

    Raises:
        ValueError: If one cannot.
    """
    for crop in crops:
        if crop < _CROP_STEP or crop % _CROP_STEP:
            raise ValueError(f'crops must be positive multiples of {_CROP_STEP}, got {crop}')
    for batch in batches:
        if batch < 1:
            raise ValueError(f'batches must be at least 1, got {batch}')
    for number in threads:
        if not 1 <= number <= usable_cpus():
            raise ValueError(
                f'threads must be between 1 and the {usable_cpus()} processors here, got {number}'
            )


def chosen_device(name: str, threads: Sequence[int] | None) -> torch.device:
    """The device of a run.

    Raises:
        ValueError: If it is not here, or threads are asked for that it does not have.
    """
    if name not in ('cpu', 'cuda'):
        raise ValueError(f'device must be cpu or cuda, got {name!r}')
    if name == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            f'device cuda: torch {torch.__version__} finds no GPU here; use --device cpu'
        )
    if name == 'cuda' and threads is not None:
        raise ValueError('threads has no effect on cuda; leave it out')
    return torch.device(name)
