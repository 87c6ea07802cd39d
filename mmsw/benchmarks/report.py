"""Reports of a benchmark: Markdown tables and notes, and JSON with everything."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mmsw.json_file import write_json
from mmsw.whole_file import write_text

from .comparison import Group
from .runs import AnyRun, Failure, Run, finished, result_of

AnyGroup = TypeVar('AnyGroup', bound=Group)


def write_report(
    out: Path,
    kind: str,
    parts: Iterable[str],
    summary: list[dict[str, Any]],
    runs: Sequence[AnyRun],
    failures: Sequence[Failure],
    **more: Callable[[AnyRun], Any],
) -> str:
    """Write ``report.md`` and ``results.json``.

    Args:
        out: Folder to write to.
        kind: Of the JSON file, see :mod:`mmsw.json_file`.
        parts: Of the Markdown text; empty ones are left out.
        summary: What the runs say together.
        runs: The planned runs.
        failures: Runs that failed in this call.
        more: What else the JSON file tells of each run.

    Returns:
        The Markdown text.
    """
    text = '\n\n'.join(part for part in parts if part) + '\n'
    write_text(out / 'report.md', text)
    told = [
        {
            'name': run.name,
            'settings': run.settings,
            'result': result_of(run),
            **{name: value(run) for name, value in more.items()},
        }
        for run in runs
    ]
    failed = [{'name': failure.run.name, 'code': failure.code} for failure in failures]
    write_json(out / 'results.json', kind, {'summary': summary, 'runs': told, 'failed': failed})
    return text


def progress_text(runs: Sequence[Run]) -> str:
    """How many runs are finished."""
    return f'{sum(1 for _ in finished(runs))} of {len(runs)} runs finished.'


def device_text(runs: Sequence[Run]) -> str:
    """What the runs are trained on."""
    return runs[0].settings['device'] if runs else 'cpu'


def table(lines: Sequence[Sequence[str]]) -> str:
    """Markdown table of cells as text; the first line is its head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        '| '
        + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + ' |'
        for line in lines
    ]
    text.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join(text)


def table_of(
    groups: Iterable[AnyGroup], columns: Sequence[tuple[str, Callable[[AnyGroup], str]]]
) -> str:
    """Markdown table with a line for each group; a column is a head and what gives its cells."""
    heads = [head for head, _ in columns]
    return table([heads, *([cell(group) for _, cell in columns] for group in groups)])


def notes(lines: Iterable[str], failures: Sequence[Failure]) -> str:
    """Markdown list of remarks, with the failed runs at its end."""
    failed = [f'FAILED: {item.run.name}, exit code {item.code}, {item.log}' for item in failures]
    return '\n'.join(f'- {line}' for line in [*lines, *failed])


def unequal(
    runs: Iterable[AnyRun], alike: Callable[[AnyRun], Hashable], keys: Sequence[str]
) -> list[str]:
    """Finished runs whose results are not those of others that are alike.

    Args:
        runs: The runs.
        alike: Of a run: what it has in common with those that it must be equal to.
        keys: What must be the same in their results.

    Returns:
        Which run differs from which in what.
    """
    first: dict[Hashable, tuple[str, dict[str, Any]]] = {}
    odd = []
    for run, result in finished(list(runs)):
        name, other = first.setdefault(alike(run), (run.name, result))
        differing = [key for key in keys if result[key] != other[key]]
        if differing:
            odd.append(f'{run.name} (unlike {name} in {", ".join(differing)})')
    return odd
