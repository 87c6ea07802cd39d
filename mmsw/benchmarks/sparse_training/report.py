"""The report of the benchmark: Markdown tables, JSON with everything, and words that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import report as shared
from ..comparison import Spread
from ..report import device_text, notes, progress_text, table_of
from ..runs import Failure
from ..words import NONE
from .operator_time import operator_of
from .plan import SparsityRun, SparsitySettings
from .summary import (
    Cell,
    accuracy_gain,
    conclusions,
    dense_of,
    inexact,
    make_cells,
    static_of,
    unequal_conditions,
)


def write_report(
    runs: Sequence[SparsityRun], settings: SparsitySettings, failures: Sequence[Failure]
) -> str:
    """Write ``report.md`` and ``results.json`` from what is finished; returns the former."""
    cells = make_cells(runs)
    parts = [
        '# Sparse training',
        _settings_text(runs, cells, settings),
        *tables_and_conclusions(cells),
        notes(_notes(runs, cells, settings), failures),
    ]
    return shared.write_report(
        settings.out,
        'benchmark_sparsity',
        parts,
        _summary(cells),
        runs,
        failures,
        operator=operator_of,
    )


def tables_and_conclusions(cells: Sequence[Cell]) -> list[str]:
    """What was learnt, what it took, and what the comparisons say."""
    return [_learning_table(cells), _time_table(cells), conclusions(cells)]


def _settings_text(
    runs: Sequence[SparsityRun], cells: Sequence[Cell], settings: SparsitySettings
) -> str:
    images = {result['held_out'] for cell in cells for result in cell.results.values()}
    seen = f'images held out: {images.pop()}; ' if images else ''
    rules = ''.join(f'{name}: {value}; ' for name, value in settings.rules.items())
    return (
        f'{progress_text(runs)} Iterations of each: {settings.max_iters}; seeds: '
        f'{settings.seeds}; masks change every {settings.update_interval} iterations up to '
        f'iteration {settings.end_iter} (static: never); {rules}{seen}{settings.jobs} runs side by '
        f'side, one thread each; device: {device_text(runs)}.'
    )


def _learning_table(cells: Sequence[Cell]) -> str:
    return table_of(
        cells,
        [
            ('method', lambda c: c.method),
            ('pruned', lambda c: f'{c.sparsity:.0%}'),
            ('seeds', lambda c: c.seeds),
            ('accuracy [%]', lambda c: c.spread(lambda r: r['accuracy']).text()),
            ('accuracy − dense [95% interval]', lambda c: _difference(c, dense_of(c, cells))),
            ('accuracy − static [95% interval]', lambda c: _difference(c, static_of(c, cells))),
            ('filters left', lambda c: _percent(c.spread(_share_of('filters')))),
            ('weights left', lambda c: _percent(c.spread(_share_of('weights')))),
            ('exchanged', lambda c: _percent(c.spread(lambda r: r['exchanged']))),
        ],
    )


def _time_table(cells: Sequence[Cell]) -> str:
    forward, both = 'forward', 'forward_backward'
    return table_of(
        cells,
        [
            ('method', lambda c: c.method),
            ('pruned', lambda c: f'{c.sparsity:.0%}'),
            ('s / iteration', lambda c: _text(c.spread(_seconds), 3)),
            (
                '× dense',
                lambda c: _text(
                    _against(c, dense_of(c, cells), lambda a, b: _seconds(a) / _seconds(b))
                ),
            ),
            ('updates', lambda c: _percent(c.spread(lambda r: r['updates_share']))),
            ('work left', lambda c: _percent(c.operator(lambda o: o['work_left']))),
            ('operator forward [ms]', lambda c: _milliseconds(c, forward)),
            ('× unpruned', lambda c: _text(c.operator(lambda o: o[forward]['ratio']))),
            ('with backward [ms]', lambda c: _milliseconds(c, both)),
            ('× unpruned', lambda c: _text(c.operator(lambda o: o[both]['ratio']))),
        ],
    )


def _notes(
    runs: Sequence[SparsityRun], cells: Sequence[Cell], settings: SparsitySettings
) -> list[str]:
    lines = [
        '± is the sample standard deviation over the seeds; differences and ratios to dense are '
        'taken seed by seed. The interval of a difference is that of its mean, by Student’s t.',
        'Exchanged: share of the weights left at the end that the masks of the start had pruned.',
        f'Seconds: median over the iterations of a run, data and updates included, start and '
        f'evaluation excluded, with {settings.jobs} runs at work side by side. Updates: share of '
        'the training time that choosing and setting masks took.',
    ]
    operators = [found for cell in cells for found in cell.operators.values()]
    if operators:
        backend = ', '.join(sorted({name for found in operators for name in found['backend']}))
        maps = ', '.join(dict.fromkeys(f'{h}×{w}' for h, w in operators[0]['maps']))
        lines.append(
            'Operator: all shift-wise operators of the network once, at the trained weights, '
            f'batch {operators[0]["batch"]}, maps {maps}, backend {backend}, one thread, nothing '
            'else of the benchmark at work; × unpruned: against the same operators with every '
            'pruned weight filled, timed in turns, median of the ratios. For dense both are alike: '
            'its figure is the error of the measurement. Work left: multiply-adds of the cross '
            'form in blocks that are not empty.'
        )
    if any(cell.results for cell in cells):
        odd = inexact(runs)
        lines.append(
            'NOT exact: ' + '; '.join(odd)
            if odd
            else 'Every run kept exactly the number that its sparsity asks for, from the start to '
            'the end, and every pruned weight in its file is exactly zero.'
        )
        odd = unequal_conditions(runs)
        lines.append(
            'NOT the same start, data or random numbers: ' + '; '.join(odd)
            if odd
            else 'Runs of the same seed began with the same values, batch norms and random '
            'generators, saw the same first and last batches, and ended with the same generators; '
            'static and filter began with the same masks.'
        )
    return lines


def _summary(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    summaries = []
    for cell in cells:
        summary = {
            'method': cell.method,
            'sparsity': cell.sparsity,
            'finished': len(cell.results),
            'wanted': cell.wanted,
            'accuracy': cell.spread(lambda r: r['accuracy']).numbers(),
            'seconds_per_iteration': cell.spread(_seconds).numbers(),
            'work_left': cell.operator(lambda o: o['work_left']).numbers(),
            'operator_forward': cell.operator(lambda o: o['forward']['ratio']).numbers(),
            'operator_forward_backward': cell.operator(
                lambda o: o['forward_backward']['ratio']
            ).numbers(),
        }
        for reference in (dense_of(cell, cells), static_of(cell, cells)):
            if reference is not None:
                difference = _against(cell, reference, accuracy_gain)
                summary[f'accuracy_minus_{reference.method}'] = difference.numbers()
        summaries.append(summary)
    return summaries


def _against(cell: Cell, reference: Cell | None, value: Callable[[dict, dict], float]) -> Spread:
    """Of nothing where there is no reference."""
    return Spread.of([]) if reference is None else cell.against(reference, value)


def _seconds(result: dict[str, Any]) -> float:
    return result['seconds_per_iteration']


def _share_of(what: str) -> Callable[[dict[str, Any]], float]:
    return lambda result: result[f'{what}_kept'] / result[what]


def _difference(cell: Cell, reference: Cell | None) -> str:
    found = _against(cell, reference, accuracy_gain)
    return found.signed_text() if found.n else NONE


def _milliseconds(cell: Cell, mode: str) -> str:
    found = cell.operator(lambda operator: 1e3 * operator[mode]['seconds'])
    return f'{found.mean:.1f}' if found.n else NONE


def _text(spread: Spread, digits: int = 2) -> str:
    return spread.text(digits) if spread.n else NONE


def _percent(spread: Spread) -> str:
    return f'{spread.mean:.1%}' if spread.n else NONE
