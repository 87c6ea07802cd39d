"""Keeping two processes from working in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsw.errors import UsageError


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone: not for the ones that it starts, and until it ends.

    Args:
        folder: It is created.

    Raises:
        UsageError: If another process holds it, or nothing can be written there.
    """
    import fcntl  # not on Windows, where the rest of the package can be imported

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / 'lock').open('w', encoding='utf-8')
    except OSError as error:
        raise UsageError(f'{folder} cannot be written to: {error}; name another --out') from error
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f'another benchmark, or a training that a killed one left, is at work in {folder}: '
                'wait for its end, end it, or name another --out'
            ) from None
        yield
