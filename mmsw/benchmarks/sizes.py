"""What every timing of networks or their layers may be asked for: sizes, threads and contenders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch

from .measure import usable_cpus

_CROP_STEP = 32


@dataclass(frozen=True)
class TimingSettings:
    """What a run covers.

    Attributes:
        crops: Sides of the image, in pixels.
        batches: Images of a call.
        threads: Threads of torch; ``()`` for as many as torch uses by itself.
        only: Parts of the names of the contenders to measure; ``()`` for all.
    """

    crops: tuple[int, ...] = (224, 512)
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = ()
    only: tuple[str, ...] = ()

    needed: ClassVar[tuple[str, ...]] = ('crops', 'batches')  # each has at least one value

    def takes(self, name: str) -> bool:
        """Whether a contender is to be measured."""
        return not self.only or any(part.lower() in name.lower() for part in self.only)

    def nobody(self, names: Iterable[str]) -> ValueError:
        """The error that none of the contenders of these names is to be measured."""
        return ValueError(f'only must be parts of names of {list(names)}, got {list(self.only)}')

    def check(self) -> None:
        """See that every value can be measured; raises ``ValueError``."""
        for name in self.needed:
            if not getattr(self, name):
                raise ValueError(f'{name} must name at least one value')
        for crop in self.crops:
            if crop < _CROP_STEP or crop % _CROP_STEP:
                raise ValueError(f'crops must be positive multiples of {_CROP_STEP}, got {crop}')
        for batch in self.batches:
            if batch < 1:
                raise ValueError(f'batches must be at least 1, got {batch}')
        for number in self.threads:
            if not 1 <= number <= usable_cpus():
                raise ValueError(
                    f'threads must be between 1 and the {usable_cpus()} processors here, '
                    f'got {number}'
                )


Settings = TypeVar('Settings', bound=TimingSettings)


def chosen_settings(presets: Mapping[str, Settings], preset: str, **given: object) -> Settings:
    """Settings of a preset, some of them replaced, and checked.

    Args:
        presets: By name.
        preset: Name of one.
        given: Values instead of the preset's; ``None`` for the preset's.

    Raises:
        ValueError: If there is no such preset, or a value cannot be measured.
    """
    if preset not in presets:
        raise ValueError(f'preset must be one of {sorted(presets)}, got {preset!r}')
    values = {
        name: tuple(value) if isinstance(value, Iterable) else value
        for name, value in given.items()
        if value is not None
    }
    settings = replace(presets[preset], **values)
    settings.check()
    return settings


def chosen_device(name: str, threads: object | None) -> torch.device:
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
