"""What a checkpoint file says about its network besides the tensors: the one reader of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """Settings that leave no trace in any shape, where something besides the tensors tells them.

    Attributes:
        origin: What tells them, for messages.
        big_kernels: Focus length M per stage, in positions of the stage's map; ``None``: not told.
        num_reps: Repetitions R; ``None``: not told.
        ghost_ratio: Share of the channels that bypass the operator; ``None``: not told.
    """

    origin: str
    big_kernels: Sequence[int] | None = None
    num_reps: int | None = None
    ghost_ratio: float | None = None


def read_records(checkpoint: Any) -> Recorded | None:
    """Settings that a file records: what a conversion wrote, else the authors' command line.

    Args:
        checkpoint: What the file holds.

    Returns:
        The settings, as the file has them, or ``None`` if it records none. A value of a kind that
        cannot be meant (``kernel_size=None``) counts as not told.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    backbone = meta.get('backbone') if isinstance(meta, Mapping) else None
    if isinstance(backbone, Mapping):
        big_kernels = _sequence(backbone.get('big_kernels'))
        repetitions, ghost_ratio = backbone.get('num_reps'), backbone.get('ghost_ratio')
        return Recorded("the file's meta data", big_kernels, repetitions, ghost_ratio)
    arguments = training_arguments(checkpoint)
    kernels = _sequence(arguments.get('kernel_size'))
    big_kernels = kernels[:-1] if kernels else None  # the last one is the small kernel
    repetitions, ghost_ratio = arguments.get('N_rep'), arguments.get('ghost_ratio')
    if big_kernels is None and repetitions is None and ghost_ratio is None:
        return None
    return Recorded("the file's training arguments", big_kernels, repetitions, ghost_ratio)


def training_arguments(checkpoint: Any) -> dict[str, Any]:
    """Command line of the authors' training script, where the file holds one."""
    arguments = checkpoint.get('args') if isinstance(checkpoint, Mapping) else None
    if isinstance(arguments, Mapping):
        return dict(arguments)
    return vars(arguments) if hasattr(arguments, '__dict__') else {}


def _sequence(value: Any) -> tuple[Any, ...] | None:
    return tuple(value) if isinstance(value, (list, tuple)) else None
