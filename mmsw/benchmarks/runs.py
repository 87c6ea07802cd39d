"""Runs of a benchmark: what tells them apart, what is left of them, how they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmsw.errors import UsageError
from mmsw.json_file import read_json

from .digests import digest
from .locks import exclusive

# Files in the folder of a run.
CONFIG = 'config.py'
SETTINGS = 'settings.json'
PROGRESS = 'progress.json'
RESULT = 'result.json'
FINAL = 'final.pth'
LOG = 'log.txt'
_TAIL = 12  # lines of the log of a failed run that are shown


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        folder: Where everything of the run goes.
        settings: All that decides the result, by name.
        seed: Of initial values, data order and augmentation.
    """

    folder: Path
    settings: dict[str, Any]
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    @property
    def digest(self) -> str:
        """Of its settings."""
        return digest(self.settings)

    @property
    def kind(self) -> str:
        """Runs of one kind take about the same time."""
        return ''


AnyRun = TypeVar('AnyRun', bound=Run)


@dataclass(frozen=True)
class Failure:
    """A run that did not end well.

    Attributes:
        run: Which.
        code: Exit code of its process.
        log: Its whole output.
        tail: The end of it.
    """

    run: Run
    code: int
    log: Path
    tail: str


def result_of(run: Run) -> dict[str, Any] | None:
    """The result of a finished run; None if it is not finished.

    Raises:
        UsageError: If a result is there that was made with other settings.
    """
    result = read_json(run.folder / RESULT, 'training_result')
    if result is not None and result.get('digest') != run.digest:
        raise UsageError(
            f'{run.folder / RESULT} is of other settings (digest {result.get("digest")} instead of '
            f'{run.digest}): delete that folder, or name another --out'
        )
    return result


def finished(runs: Sequence[AnyRun]) -> Iterator[tuple[AnyRun, dict[str, Any]]]:
    """The finished ones among runs, with their results."""
    for run in runs:
        result = result_of(run)
        if result is not None:
            yield run, result


def failure_of(run: Run, code: int) -> Failure | None:
    """What to say of a run whose process has ended; None if it left a result."""
    if code == 0 and (run.folder / RESULT).is_file():
        return None
    log = run.folder / LOG
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()[-_TAIL:]
    return Failure(run, code, log, '\n'.join(f'    {line}' for line in lines))


def check_free(runs: Sequence[Run]) -> None:
    """Make sure that no training outlived a benchmark that was killed.

    Raises:
        UsageError: If one did.
    """
    for run in runs:
        if run.folder.is_dir():
            with exclusive(run.folder):
                pass


def check_not_mixed(runs: Sequence[Run]) -> None:
    """Refuse to go on in a folder with results of other settings.

    Raises:
        UsageError: If a run was begun with settings that differ.
    """
    for run in runs:
        old = read_json(run.folder / SETTINGS, 'training_settings')
        new = json.loads(json.dumps(run.settings))
        if old is None or old == new:
            continue
        keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        differences = ', '.join(
            f'{key} {old.get(key)!r} there, {new.get(key)!r} now' for key in keys
        )
        raise UsageError(
            f'{run.folder} was made with other settings ({differences}). Results of different '
            'settings are not mixed: name another --out, or delete that folder'
        )
