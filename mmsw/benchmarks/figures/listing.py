"""What is there of every job: whether it is done, and how current the figures of the pages are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmsw.errors import UsageError
from mmsw.text_table import text_table

from ..page import read_figures
from ..processes import clock
from ..provenance import UNKNOWN, changed_since
from ..words import NONE
from .jobs import Job
from .run import Places, state_of, why_not


def listing(jobs: Sequence[Job], places: Places) -> str:
    """A table of jobs, and one of the blocks that they fill.

    Args:
        jobs: Which.
        places: Where they run and write.
    """
    rows, blocks = [], []
    for job in jobs:
        found = [_figures(places, block) for block in job.blocks]
        state = state_of(job, places)
        rows.append([job.name, _state(job, places, state), _time(found, state), job.question])
        for (page, name), figures in zip(job.blocks, found, strict=True):
            blocks.append([f'{page} {name}'.strip(), job.name, *_origin(figures, places)])
    parts = [text_table(['job', 'state', 'took', 'question'], rows, left=4)]
    if blocks:
        heads = ['block', 'job', 'figures of', 'commit', 'code since then']
        parts.append(text_table(heads, blocks, left=5))
    return '\n\n'.join(parts)


def _figures(places: Places, block: tuple[str, str]) -> dict[str, Any] | None:
    try:
        return read_figures(places.docs / block[0], block[1])
    except UsageError:
        return None


def _state(job: Job, places: Places, state: Mapping[str, Any] | None) -> str:
    if reason := why_not(job, places):
        return reason
    if state is None:
        return 'not run'
    return f'done {state["date"][:10]}' if state['code'] == 0 else f'failed ({state["code"]})'


def _time(found: Sequence[Mapping[str, Any] | None], state: Mapping[str, Any] | None) -> str:
    """As last measured: of the figures of the pages, else of the last run in the folder."""
    for figures in found:
        made = (figures or {}).get('made', {})
        if seconds := made.get('job_seconds') or (figures or {}).get('seconds'):
            return clock(seconds)
    return clock(state['seconds']) if state else NONE


def _origin(figures: Mapping[str, Any] | None, places: Places) -> tuple[str, str, str]:
    made = (figures or {}).get('made', {})
    if not re.match(r'\d{4}-', str(made.get('date'))):
        return ('none', NONE, NONE)
    date, commit, told = made['date'][:10], made['commit'], made['commit']
    if figures.get('transcribed'):
        date += ', from the page'
    if commit == UNKNOWN and 'in_docs_since' in made:
        commit = made['in_docs_since']
        told = f'before {commit}'
    changed = changed_since(commit, places.root)
    files = NONE if changed is None else f'{changed} files differ' if changed else 'the same'
    return date, told, files
