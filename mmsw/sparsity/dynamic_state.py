"""What a checkpoint holds of a sparse training beside the masks: its form, read with care."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmsw.errors import SparsityError
from mmsw.wording import listed

DYNAMIC_SPARSITY = 'dynamic_sparsity'  # key of a checkpoint: the state of such a training
STATE_VERSION = 2
_FIRST_SETTINGS = {'prune': 'magnitude', 'redistribution': None}  # what was done before they were
_VERSION_1 = {'settings': None, 'pending': False, 'momentum': {}}  # what it may lack


@dataclass(frozen=True)
class DynamicState:
    """State of a sparse training; the masks are in the network.

    In a file it is a dict of these parts and ``version``. Version 1 had no ``settings`` and no
    ``kept``, and in its last files ``kept`` was called ``layers``.

    Attributes:
        settings: Settings by name; ``None`` if the file does not record them.
        kept: Units kept by layer name; ``None`` if the file does not record them.
        updates: Updates done.
        generator: State of the random generator.
        pending: Whether an update is due that waits for the optimizer's step.
        momentum: Running mean of the gradient by layer name, if growth goes by it.
    """

    settings: Mapping[str, Any] | None
    kept: Mapping[str, int] | None
    updates: int
    generator: Tensor
    pending: bool = False
    momentum: Mapping[str, Tensor] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """What goes into a file."""
        return {'version': STATE_VERSION, **vars(self)}

    @classmethod
    def read(cls, saved: object) -> DynamicState:
        """Read what :meth:`as_dict` or an earlier version has written.

        Raises:
            SparsityError: If it is of a newer version of this project, or damaged.
        """
        if not isinstance(saved, Mapping):
            raise damaged(f'it is {_what(saved)}, expected a dict')
        version = saved.get('version', 1)
        if not _is_count(version):
            raise damaged(f'version is {_what(version)}, expected a number')
        if version > STATE_VERSION:
            raise SparsityError(
                f'the checkpoint holds a state of sparse training of form {version}, and this '
                f'version of mmsw knows forms up to {STATE_VERSION}: install a newer mmsw'
            )
        parts = dict(saved)
        if version < 2:
            parts = {**_VERSION_1, 'kept': parts.get('layers'), **parts}
        for name, (fits, expected) in _PARTS.items():
            unknown = version < 2 and name in ('settings', 'kept') and parts[name] is None
            if not unknown and not fits(parts.get(name)):
                raise damaged(f'{name} is {_what(parts.get(name))}, expected {expected}')
        if parts['settings'] is not None:
            parts['settings'] = {**_FIRST_SETTINGS, **parts['settings']}
        return cls(**{name: parts[name] for name in _PARTS})


def check_kept(recorded: Mapping[str, int], now: Mapping[str, int], unit: str) -> None:
    """Compare the number of units that the layers of a network keep with a checkpoint's.

    Args:
        recorded: By layer name, as the checkpoint says.
        now: By layer name, as the masks of the network say.
        unit: What is counted, for messages.

    Raises:
        SparsityError: If these are other layers, or the masks keep another number.
    """
    odd = sorted(set(now) ^ set(recorded))
    if odd:
        raise SparsityError(
            f'the checkpoint is of a sparse training of {len(recorded)} layers, this one has '
            f'{len(now)}; in one of them only: {listed(odd)}. Train the same layers (scope, '
            'frozen stages), or start a new run from its weights (load_from, without --resume)'
        )
    changed = [
        f'{name} keeps {now[name]} {unit}s instead of {number}'
        for name, number in recorded.items()
        if now[name] != number
    ]
    if changed:
        raise SparsityError(
            'the masks are not those that the sparse training of the checkpoint had: '
            f'{listed(changed)}. If the file was edited, start a new run from its weights '
            "(load_from, without --resume), with start='from_checkpoint'"
        )


def damaged(problem: str) -> SparsityError:
    """The error for a state that does not have its form."""
    return SparsityError(
        f'the state of sparse training in the checkpoint is damaged ({problem}). Resume from '
        'another checkpoint of the run, or start a new run from its weights (load_from, '
        "without --resume), with start='from_checkpoint'"
    )


def _what(value: object) -> str:
    if value is None:
        return 'missing'
    return f'{value!r:.60}' if is_plain(value) else f'a {type(value).__name__}'


def is_plain(value: object) -> bool:
    """Whether it can be the value of a setting in a file."""
    return value is None or isinstance(value, (bool, int, float, str))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_generator_state(value: object) -> bool:
    try:
        torch.Generator().set_state(value.cpu())
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def _maps_to(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    """Whether something has names as keys, and values that fit."""
    return lambda found: (
        isinstance(found, Mapping)
        and all(isinstance(key, str) and fits(value) for key, value in found.items())
    )


_PARTS: dict[str, tuple[Callable[[object], bool], str]] = {
    'settings': (
        _maps_to(is_plain),
        'settings by name',
    ),
    'kept': (_maps_to(_is_count), 'numbers of units by layer name'),
    'updates': (_is_count, 'a number of updates'),
    'generator': (_is_generator_state, 'the state of a random generator of torch'),
    'pending': (lambda value: isinstance(value, bool), 'True or False'),
    'momentum': (_maps_to(lambda value: isinstance(value, Tensor)), 'tensors by layer name'),
}
