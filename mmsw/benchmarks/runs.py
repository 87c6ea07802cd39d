"""Runs of a benchmark: what tells them apart, what is left of them, how they fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsw.errors import UsageError

from .files import digest, read_json
from .locks import exclusive

RESULT = 'result.json'
LOG = 'log.txt'
_TAIL = 12  # lines of the log of a failed run that are shown


@dataclass(frozen=True)
class BenchmarkRun:
    """One training.

    Attributes:
        folder: Where everything of the run goes.
        settings: All that decides the result, by name.
    """

    folder: Path
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    @property
    def digest(self) -> str:
        """Of its settings."""
        return digest(self.settings)


@dataclass(frozen=True)
class Failure:
    """A run that did not end well.

    Attributes:
        run: Which.
        code: Exit code of its process.
        log: Its whole output.
        tail: The end of it.
    """

    run: BenchmarkRun
    code: int
    log: Path
    tail: str


def result_of(run: BenchmarkRun) -> dict[str, Any] | None:
    """The result of a finished run; None if it is not finished.

    Raises:
        UsageError: If a result is there that was made with other settings.
    """
    result = read_json(run.folder / RESULT)
    if result is not None and result['digest'] != run.digest:
        raise UsageError(
            f'{run.folder / RESULT} is of other settings (digest {result["digest"]} instead of '
            f'{run.digest}): delete that folder, or name another --out'
        )
    return result


def failure_of(run: BenchmarkRun, code: int) -> Failure | None:
    """What to say of a run whose process has ended; None if it left a result."""
    if code == 0 and (run.folder / RESULT).is_file():
        return None
    log = run.folder / LOG
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()[-_TAIL:]
    return Failure(run, code, log, '\n'.join(f'    {line}' for line in lines))


def check_free(runs: Sequence[BenchmarkRun]) -> None:
    """Make sure that no training outlived a benchmark that was killed.

    Raises:
        UsageError: If one did.
    """
    for run in runs:
        if run.folder.is_dir():
            with exclusive(run.folder):
                pass
