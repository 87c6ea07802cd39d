"""Run what the documentation quotes, job after job, and put the figures into its pages."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch

from mmsw.errors import UsageError
from mmsw.json_file import read_json, write_json
from mmsw.whole_file import write_whole

from ..page import blocks_of, figures_path
from ..processes import clock, end, start
from ..provenance import provenance
from .blocks import add_to_figures
from .jobs import CUDA, JOBS, Job

_KIND = 'figures_job'
_STATE, _LOG = 'job.json', 'log.txt'


@dataclass(frozen=True)
class Places:
    """Where jobs run and write.

    Attributes:
        root: Of the checkout; jobs run there.
        out: Folder of all jobs.
        docs: Folder of the pages that get figures.
        quick: Whether the smallest form of each job is run.
    """

    root: Path
    out: Path
    docs: Path
    quick: bool

    @classmethod
    def of(cls, root: Path, out: Path, quick: bool) -> Places:
        """Those of a call: a quick one gets a folder and a copy of the pages of its own."""
        out = out / 'quick' if quick else out
        return cls(root, out, out / 'docs' if quick else root / 'docs', quick)

    def folder(self, job: Job) -> Path:
        """Of a job."""
        return self.out / job.name

    def filled(self, text: str, job: Job) -> str:
        """A command or path of a job with the names of the folders."""
        folders = {'out': self.folder(job), 'all': self.out, 'docs': self.docs}
        return text.format(**{name: _short(path, self.root) for name, path in folders.items()})


def chosen_jobs(names: Sequence[str] | None, jobs: Sequence[Job] = JOBS) -> list[Job]:
    """Jobs by their names, in the order in which they are run.

    Args:
        names: Which; None for all.
        jobs: All there are.

    Raises:
        UsageError: If there is no such job.
    """
    known = {job.name for job in jobs}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        names = ', '.join(job.name for job in jobs)
        raise UsageError(f'no job is called {unknown[0]}; expected some of {names}')
    return [job for job in jobs if names is None or job.name in names]


def state_of(job: Job, places: Places) -> dict[str, Any] | None:
    """What is kept of the last run of a job: ``code``, ``seconds``, ``commit`` and ``date``."""
    return read_json(places.folder(job) / _STATE, _KIND)


def why_not(job: Job, places: Places) -> str | None:
    """Why a job cannot be run here; None if it can."""
    if job.device == CUDA and not torch.cuda.is_available():
        return 'needs a GPU'
    scripts = [shlex.split(command)[0] for command in commands_of(job, places.quick)]
    missing = [name for name in scripts if name != 'make' and not (places.root / name).is_file()]
    return f'{missing[0]} does not exist' if missing else None


def commands_of(job: Job, quick: bool) -> Sequence[str]:
    """Of a job, with the names of folders still to be filled in."""
    return job.quick if quick else job.commands


def make_figures(
    jobs: Sequence[Job],
    places: Places,
    again: Sequence[str] = (),
    progress: Callable[[str], None] = print,
) -> list[str]:
    """Run what has not been run, one job after the other.

    A job that is done is not run again; one that was stopped goes on where its command can.

    Args:
        jobs: Which, in their order.
        places: Where they run and write.
        again: Names of those that are run even if they are done.
        progress: Called with a line of text now and then.

    Returns:
        Names of the jobs that failed.
    """
    if places.quick:
        copy_pages(places.root / 'docs', places.docs)
    failed = []
    for number, job in enumerate(jobs, 1):
        told = f'[{number}/{len(jobs)}] {job.name}'
        state = state_of(job, places)
        if reason := why_not(job, places):
            progress(f'{told}: left out: {reason}')
        elif state is not None and state['code'] == 0 and job.name not in again:
            progress(f'{told}: done on {state["date"][:10]}')
        else:
            progress(f'{told}: {job.question}')
            code = _run(job, places, progress)
            if code:
                failed.append(job.name)
                progress(f'  failed with exit code {code}: {places.folder(job) / _LOG}')
    return failed


def copy_pages(source: Path, target: Path) -> None:
    """Copy the pages that have blocks, and their figures, unless they are there."""
    for page in sorted(source.glob('*.md')):
        names = blocks_of(page.read_text(encoding='utf-8'))
        for path in [page, *(figures_path(page, name) for name in names)] if names else []:
            copied = target / path.relative_to(source)
            if path.is_file() and not copied.is_file():
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copied)
    zoo = 'model_zoo.md'
    if (source / zoo).is_file() and not (target / zoo).is_file():
        shutil.copyfile(source / zoo, target / zoo)


def _run(job: Job, places: Places, progress: Callable[[str], None]) -> int:
    folder = places.folder(job)
    folder.mkdir(parents=True, exist_ok=True)
    begin, code = time.perf_counter(), 0
    before = {block: _stamp(places, block) for block in job.blocks}
    with (folder / _LOG).open('w', encoding='utf-8') as log:
        for command in commands_of(job, places.quick):
            words = shlex.split(places.filled(command, job))
            progress(f'  {shlex.join(words)}')
            code = _call(words, places.root, log)
            if code:
                break
    seconds = round(time.perf_counter() - begin, 1)
    if not code:
        code = _take(job, places, before, seconds, progress)
    made = provenance()
    state = dict(code=code, seconds=seconds, commit=made['commit'], date=made['date'])
    write_json(folder / _STATE, _KIND, state)
    progress(f'  {clock(seconds)}')
    return code


def _call(words: Sequence[str], root: Path, log: TextIO) -> int:
    """Run a command to its end, or end it with this process; returns its exit code."""
    if words[0] == 'make':
        call = ['make', f'PYTHON={sys.executable}', *words[1:]]
    else:
        call = [sys.executable, *words]
    log.write(f'$ {shlex.join(words)}\n')
    log.flush()
    process = start(call, log, cwd=root)
    try:
        return process.wait()
    finally:
        end(process)


def _stamp(places: Places, block: tuple[str, str]) -> bytes | None:
    path = figures_path(places.docs / block[0], block[1])
    return path.read_bytes() if path.is_file() else None


def _take(
    job: Job,
    places: Places,
    before: Mapping[tuple[str, str], bytes | None],
    seconds: float,
    progress: Callable[[str], None],
) -> int:
    """Say beside the figures which job made them, and fetch the pictures; returns an exit code."""
    for block in job.blocks:
        if _stamp(places, block) == before[block]:
            progress(f'  {block[0]}, block {block[1] or "tables"}: the commands wrote no figures')
            return 1
        more = dict(job=job.name, job_seconds=seconds, **({'quick': True} if places.quick else {}))
        add_to_figures(places.docs / block[0], block[1], more)
    for source, target in () if places.quick else job.pictures:
        path = places.root / places.filled(source, job)
        write_whole(places.docs / target, partial(shutil.copyfile, path))
    return 0


def _short(path: Path, root: Path) -> str:
    """A path as one types it at the root of the checkout."""
    path = path.resolve()
    return str(path.relative_to(root.resolve()) if path.is_relative_to(root.resolve()) else path)
