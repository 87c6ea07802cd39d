"""Errors that a user can act on: the tools print them as one line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class MmswError(Exception):
    """Base of the errors whose message says what was wrong, what was expected and what to do."""


class UsageError(MmswError, ValueError):
    """What was asked for cannot be done."""


class BackendUnavailableError(MmswError, RuntimeError):
    """A backend was asked for by name and cannot run."""


class UnknownBackendError(MmswError, ValueError):
    """There is no backend of the name that was asked for."""


class CheckpointError(MmswError, ValueError):
    """A checkpoint file is missing, damaged, unsafe or of another network."""


class StateDictError(CheckpointError, RuntimeError):
    """A layer refuses what a state dict has for it; it ends any ``load_state_dict`` at once."""


class DataError(MmswError, ValueError):
    """An image or annotation file is missing, damaged or unfit; the message names it, in one line.

    It takes one text, so that it survives the way out of a data loader's worker process.
    """


class UnfitError(DataError):
    """An image or object cannot be converted; the text says why, to be counted by reason."""


class MemoryShortageError(MmswError, RuntimeError):
    """The memory of a GPU or of the machine ran out; the message names options that need less."""


class SparsityError(MmswError, ValueError):
    """A network cannot be made or kept sparse as asked."""


class SparsityLostError(MmswError, RuntimeError):
    """Pruned weights are not zero where they must be."""


class SparsityChangedError(MmswError, RuntimeError):
    """A network does not keep the filters that it kept before."""


@contextmanager
def as_usage_errors() -> Iterator[None]:
    """Inside, or in a function that this decorates, a bare ``ValueError`` is a ``UsageError``."""
    try:
        yield
    except MmswError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
