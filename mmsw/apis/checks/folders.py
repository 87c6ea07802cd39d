"""Whether a folder that a run will write to can be written to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mmsw.errors import UsageError


def check_writable(folder: str | os.PathLike[str], what: str) -> str:
    """Check that a folder can be made and written to. Nothing is left there.

    Args:
        folder: The folder; it need not exist.
        what: What asks for it, for the message.

    Returns:
        Its absolute path.

    Raises:
        UsageError: If the path, or a folder that it lies in, is a file or cannot be written to.
    """
    path = Path(os.path.abspath(folder))
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UsageError(f'{what} {os.fspath(folder)}: {there} is a file, expected a folder')
    try:
        tempfile.TemporaryDirectory(prefix='.mmsw.', dir=there).cleanup()
    except OSError as error:
        raise UsageError(
            f'{what} {os.fspath(folder)}: folder {there} cannot be written to ({error.strerror})'
        ) from error
    return str(path)
