"""A benchmark of training from its plan to its report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic

from mmengine.config import Config

from mmsw.errors import UsageError

from .execution import Way, execute
from .locks import exclusive
from .measure import usable_cpus
from .runs import AnyRun, Failure, check_free, check_not_mixed, result_of


class Study(ABC, Generic[AnyRun]):
    """What is trained, how it is told apart and what is reported; :meth:`carry_out` does it.

    Args:
        out: Folder of everything that is written.
        way: How the runs are executed.
        progress: Called with a line of text now and then; None: prints it.

    Attributes:
        picture: Name of the picture in the folder.
    """

    picture: ClassVar[str]

    def __init__(self, out: Path, way: Way, progress: Callable[[str], None] | None) -> None:
        self.out = out
        self.way = way
        self.progress = progress or partial(print, flush=True)

    @abstractmethod
    def check(self) -> None:
        """Refuse what is impossible, before any work."""

    @abstractmethod
    def make_data(self) -> None:
        """Make data that are missing and can be made."""

    @abstractmethod
    def plan(self) -> list[AnyRun]:
        """All trainings: seed by seed, so that an early end leaves whole rounds."""

    @abstractmethod
    def config_of(self, run: AnyRun) -> Config:
        """The config of a training, with the hook that measures."""

    @abstractmethod
    def inputs(self) -> Iterable[str]:
        """Lines that say what the runs start from; for the plan."""

    @abstractmethod
    def length(self, runs: Sequence[AnyRun]) -> str:
        """How long runs are; for the plan."""

    @abstractmethod
    def report(self, runs: Sequence[AnyRun], failures: Sequence[Failure]) -> str:
        """Write the report of what is finished; returns its text."""

    @abstractmethod
    def draw(self, runs: Sequence[AnyRun], path: Path) -> None:
        """Draw the picture of what is finished."""

    def prepare(self) -> None:
        """Make what the planned runs start from."""

    def measure(self, runs: Sequence[AnyRun]) -> None:
        """Measure what the runs left, with nothing else at work."""

    def carry_out(self, dry_run: bool = False) -> list[Failure]:
        """Train what is not finished, and report.

        Args:
            dry_run: Say what would be done, and do nothing.

        Returns:
            The runs that failed.

        Raises:
            UsageError: If something asked for is impossible; nothing was trained then.
            CheckpointError: If a checkpoint cannot be used.
        """
        if dry_run:
            self._tell_plan()
            return []
        self.check()
        with exclusive(self.out):
            self.make_data()
            runs = self.plan()
            check_not_mixed(runs)
            check_free(runs)
            self.prepare()
            failures: list[Failure] = []

            def ended(failure: Failure | None) -> None:
                failures.extend([] if failure is None else [failure])
                self.report(runs, failures)

            try:
                execute(runs, self.config_of, self.way, self.progress, ended)
                self.measure(runs)
            finally:
                text = self.report(runs, failures)
                self.draw(runs, self.out / self.picture)
            files = f'report.md, results.json, {self.picture} (and .svg)'
            self.progress(f'\n{text}\nwritten to {self.out}: {files}')
            return failures

    def _tell_plan(self) -> None:
        runs = self.plan()
        check_not_mixed(runs)
        for line in self.inputs():
            self.progress(line)
        for run in runs:
            self.progress(f'run: {run.name}{" (finished)" if result_of(run) else ""}')
        to_do = [run for run in runs if result_of(run) is None]
        length = self.length(to_do)
        self.progress(f'{len(to_do)} of {len(runs)} runs to do, {length}; nothing was done')


def check_names(option: str, given: Sequence[str], known: Iterable[str]) -> None:
    """Make sure that an option names some of what is known, each of them once.

    Raises:
        UsageError: If it does not.
    """
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise UsageError(f'{option} must be some of {",".join(known)}, got {unknown or "none"}')
    if len(set(given)) < len(given):
        raise UsageError(f'--{option} {",".join(given)} names one twice')


def check_least(numbers: Mapping[str, int], least: int = 1) -> None:
    """Make sure that numbers are not too small.

    Raises:
        UsageError: If one is.
    """
    for name, value in numbers.items():
        if value < least:
            raise UsageError(f'{name} must be at least {least}, got {value}')


def check_jobs(jobs: int) -> None:
    """Make sure that runs side by side have a processor each.

    Raises:
        UsageError: If they do not.
    """
    check_least({'jobs': jobs})
    if jobs > usable_cpus():
        raise UsageError(
            f'jobs must be at most the {usable_cpus()} processors here, got {jobs}: runs that wait '
            'for each other have no time per iteration worth telling'
        )


def check_share(value: float, hint: str = '') -> None:
    """Make sure that a sparsity prunes something and leaves something.

    Raises:
        UsageError: If it does not.
    """
    if not 0 < value < 1:
        raise UsageError(f'sparsity must be between 0 and 1, got {value:g}{hint}')
