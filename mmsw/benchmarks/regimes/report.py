"""The tables of the regime matrix, and what is wrong with a cell."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ..page import item, paragraph, write_tables
from ..timing_report import opening, write_files
from ..words import NONE, table
from .regimes import OPTIMIZER_LABELS, REGIMES
from .training import Outcome
from .zeros import DENSE

_KIND = 'benchmark_regimes'
_WORDS = {'filter': 'whole filters', '2:4': '2:4', 'weight': 'single weights'}
_EXPLANATION = """\
Figures are zeros that are not zero any more: the most in the model and in averaged weights after
any iteration, or in any file. "control" is the same training without the hook. "moved" is the share
of the other weights that changed, in the layer with the fewest, the least of the optimizers.\
"""


def most_lost(outcome: Outcome) -> int:
    """The most zeros that were lost anywhere."""
    return max(outcome['live'], outcome['averaged'] or 0, outcome['saved'])


def problem_of(row: dict) -> str | None:
    """What is wrong with a cell; ``None`` if it shows that zeros survive.

    Args:
        row: Cell with its ``outcome``, and that of its ``control``.
    """
    outcome, control = row['outcome'], row['control']
    if outcome['refused'] is not None:
        return None if REGIMES[row['regime']].refused else outcome['refused']
    if lost := most_lost(outcome):
        return f'{lost} of {outcome["zeros"]} zeros are lost'
    if not outcome['moved']:
        return 'a layer was not trained, so its zeros prove nothing'
    if not outcome['files']:
        return 'no file was written'
    if control is None or not min(control['live'], control['saved']):
        return 'the control has lost nothing, so the zeros prove nothing'
    if control['whole']:
        return f'{control["whole"]} layers keep their zeros without the hook, and prove nothing'
    return None


def write_report(result: dict, out: str | os.PathLike[str]) -> None:
    """Write what :func:`~.benchmark.benchmark_regimes` returns to a folder."""
    lines = opening('Zeros in every regime of training', result, [])
    lines += ['', '## How to read it', '', _EXPLANATION, *tables(result)]
    write_files(result, out, _KIND, '\n'.join([*lines, '']))


def update_page(result: dict, page: Path) -> None:
    """Put the tables into a page, see :func:`mmsw.benchmarks.page.write_tables`."""
    write_tables(page, page_text(result), _KIND, result)


def page_text(result: dict) -> str:
    """What a page has of a run."""
    versions = ', '.join(f'{name} {found}' for name, found in result['packages'].items())
    about = result['machine']
    told = f'Made on the CPU with Python {about["python"]}, torch {about["torch"]}, {versions}.'
    return '\n'.join([paragraph(told), *tables(result), ''])


def tables(result: dict) -> list[str]:
    """Lines with a head and a table for each network, and the texts of refusals."""
    lines = []
    for network in result['networks']:
        rows = [row for row in result['rows'] if row['network'] == network['name']]
        if rows:
            lines += ['', f'## {network["label"]}', '', _start(network), '', *table_of(rows)]
    refusals = dict.fromkeys(
        (REGIMES[row['regime']].label, row['outcome']['refused'])
        for row in result['rows']
        if row['outcome']['refused'] is not None
    )
    if refusals:
        lines += ['', '## Refused', '']
        lines += [item(f'{label}: "{text}"') for label, text in refusals]
    return lines


def _start(network: dict) -> str:
    counts = Counter(network['patterns'].values())
    parts = [f'{words} in {counts[pattern]}' for pattern, words in _WORDS.items()]
    return (
        f'{network["zeros"]:,} of {network["weights"]:,} weights are zero: {", ".join(parts)} '
        f'layers. {counts[DENSE]} layers stay dense.'
    )


def table_of(rows: list[dict]) -> list[str]:
    """Lines of the table of one network: a row for each regime."""
    optimizers = list(dict.fromkeys(row['optimizer'] for row in rows))
    head = ['regime']
    for name in optimizers:
        head += [OPTIMIZER_LABELS[name], 'control']
    body = []
    for regime in dict.fromkeys(row['regime'] for row in rows):
        found = {row['optimizer']: row for row in rows if row['regime'] == regime}
        cells = [REGIMES[regime].label]
        for name in optimizers:
            cells += _cells(found[name]) if name in found else [NONE, NONE]
        trained = [row['outcome'] for row in found.values() if row['outcome']['refused'] is None]
        least = min((outcome['moved'] for outcome in trained), default=None)
        body.append([*cells, NONE if least is None else f'{least:.0%}'])
    return table([*head, 'moved'], body)


def _cells(row: dict) -> list[str]:
    outcome, control = row['outcome'], row['control']
    if outcome['refused'] is not None:
        return ['refused', NONE]
    return [f'{most_lost(outcome):,}', NONE if control is None else f'{most_lost(control):,}']
