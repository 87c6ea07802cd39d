"""What a checkpoint file says about its network besides the tensors: the one reader of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmsw.errors import CheckpointError

from .format import read_record


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


def read_records(checkpoint: Any, source: str = 'the file') -> Recorded | None:
    """Settings that a file records: what mmsw wrote, else the authors' command line.

    Args:
        checkpoint: What the file holds.
        source: Its name, for messages.

    Returns:
        The settings, as the file has them, or ``None`` if it records none. A value of a kind that
        cannot be meant (``kernel_size=None``) counts as not told.

    Raises:
        CheckpointError: If the file is of a newer format, or its record is damaged, or a setting is
            a tensor.
    """
    backbone = recorded_arguments(checkpoint, source)
    if backbone is not None:
        big_kernels = _sequence(backbone.get('big_kernels'))
        repetitions, ghost_ratio = backbone.get('num_reps'), backbone.get('ghost_ratio')
        _refuse_tensors(source, big_kernels, repetitions, ghost_ratio)
        return Recorded("the file's meta data", big_kernels, repetitions, ghost_ratio)
    arguments = training_arguments(checkpoint)
    kernels = _sequence(arguments.get('kernel_size'))
    big_kernels = kernels[:-1] if kernels else None  # the last one is the small kernel
    repetitions, ghost_ratio = arguments.get('N_rep'), arguments.get('ghost_ratio')
    _refuse_tensors(source, big_kernels, repetitions, ghost_ratio)
    if big_kernels is None and repetitions is None and ghost_ratio is None:
        return None
    return Recorded("the file's training arguments", big_kernels, repetitions, ghost_ratio)


def recorded_arguments(checkpoint: Any, source: str) -> Mapping[str, Any] | None:
    """Arguments of the network, from ``meta.mmsw``, or ``meta`` as files of format 1 have them.

    Raises:
        CheckpointError: If the file is of a newer format, or its record is damaged.
    """
    backbone = read_record(checkpoint, source).get('backbone')
    if backbone is None and isinstance(checkpoint, Mapping):
        meta = checkpoint.get('meta')
        backbone = meta.get('backbone') if isinstance(meta, Mapping) else None
    return backbone if isinstance(backbone, Mapping) else None


def training_arguments(checkpoint: Any) -> dict[str, Any]:
    """Command line of the authors' training script, where the file holds one."""
    arguments = checkpoint.get('args') if isinstance(checkpoint, Mapping) else None
    if isinstance(arguments, Mapping):
        return dict(arguments)
    return vars(arguments) if hasattr(arguments, '__dict__') else {}


def _refuse_tensors(source: str, *values: Any) -> None:
    """Comparing a tensor with a number gives a tensor."""
    for value in values:
        parts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(part, Tensor) for part in parts):
            raise CheckpointError(
                f'{source} is damaged: it records a tensor where a number was expected '
                f'({" ".join(str(value).split())[:80]})'
            )


def _sequence(value: Any) -> tuple[Any, ...] | None:
    return tuple(value) if isinstance(value, (list, tuple)) else None
