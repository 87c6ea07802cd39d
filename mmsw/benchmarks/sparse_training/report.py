"""The report of the benchmark: Markdown tables, JSON with everything, and words that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import report as shared
from ..comparison import Spread
from ..report import NONE, device_text, notes, progress_text, table
from ..runs import Failure
from .operator_time import operator_of
from .plan import DENSE, SparsityRun, SparsitySettings
from .summary import Cell, conclusions, inexact, make_cells, unequal_conditions


def write_report(
    runs: Sequence[SparsityRun], settings: SparsitySettings, failures: Sequence[Failure]
) -> str:
    """Write ``report.md`` and ``results.json`` from what is finished.

    Args:
        runs: The planned runs.
        settings: What was asked for.
        failures: Runs that failed in this call.

    Returns:
        The Markdown text.
    """
    cells = make_cells(runs)
    parts = [
        '# Sparse training',
        _settings_text(runs, cells, settings),
        _learning_table(cells),
        _time_table(cells),
        conclusions(cells),
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


def _settings_text(
    runs: Sequence[SparsityRun], cells: Sequence[Cell], settings: SparsitySettings
) -> str:
    images = {result['held_out'] for cell in cells for result in cell.results.values()}
    seen = f'images held out: {images.pop()}; ' if images else ''
    return (
        f'{progress_text(runs)} Iterations of each: {settings.max_iters}; seeds: '
        f'{settings.seeds}; masks change every {settings.update_interval} iterations up to '
        f'iteration {settings.end_iter} (static: never); {seen}{settings.jobs} runs side by '
        f'side, one thread each; device: {device_text(runs)}.'
    )


def _learning_table(cells: Sequence[Cell]) -> str:
    lines = [
        [
            *('method', 'pruned', 'seeds', 'accuracy [%]', 'accuracy − dense [95% interval]'),
            *('filters left', 'weights left', 'exchanged'),
        ]
    ]
    for cell in cells:
        difference = _against_dense(cell, cells, _gain)
        lines.append(
            [
                cell.method,
                f'{cell.sparsity:.0%}',
                cell.seeds,
                cell.spread(lambda r: r['accuracy']).text(),
                difference.signed_text() if difference.n else NONE,
                _percent(cell.spread(lambda r: r['filters_kept'] / r['filters'])),
                _percent(cell.spread(lambda r: r['weights_kept'] / r['weights'])),
                _percent(cell.spread(lambda r: r['exchanged'])),
            ]
        )
    return table(lines)


def _time_table(cells: Sequence[Cell]) -> str:
    lines = [
        [
            *('method', 'pruned', 's / iteration', '× dense', 'updates', 'work left'),
            *('operator forward [ms]', '× unpruned', 'with backward [ms]', '× unpruned'),
        ]
    ]
    for cell in cells:
        ratio = _against_dense(
            cell, cells, lambda a, b: a['seconds_per_iteration'] / b['seconds_per_iteration']
        )
        line = [
            cell.method,
            f'{cell.sparsity:.0%}',
            _text(cell.spread(lambda r: r['seconds_per_iteration']), 3),
            _text(ratio, 2),
            _percent(cell.spread(lambda r: r['updates_share'])),
            _percent(cell.operator(lambda o: o['work_left'])),
        ]
        for mode in ('forward', 'forward_backward'):
            milliseconds = cell.operator(lambda o, mode=mode: 1e3 * o[mode]['seconds'])
            line.append(f'{milliseconds.mean:.1f}' if milliseconds.n else NONE)
            line.append(_text(cell.operator(lambda o, mode=mode: o[mode]['ratio']), 2))
        lines.append(line)
    return table(lines)


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
            'seconds_per_iteration': cell.spread(lambda r: r['seconds_per_iteration']).numbers(),
            'work_left': cell.operator(lambda o: o['work_left']).numbers(),
            'operator_forward': cell.operator(lambda o: o['forward']['ratio']).numbers(),
            'operator_forward_backward': cell.operator(
                lambda o: o['forward_backward']['ratio']
            ).numbers(),
        }
        if cell.method != DENSE and DENSE in [other.method for other in cells]:
            summary['accuracy_minus_dense'] = _against_dense(cell, cells, _gain).numbers()
        summaries.append(summary)
    return summaries


def _against_dense(
    cell: Cell, cells: Sequence[Cell], value: Callable[[dict, dict], float]
) -> Spread:
    """Of nothing for dense itself, and where it is not asked for."""
    dense = next((other for other in cells if other.method == DENSE), cell)
    return Spread.of([]) if dense is cell else cell.against(dense, value)


def _gain(result: dict[str, Any], dense: dict[str, Any]) -> float:
    return result['accuracy'] - dense['accuracy']


def _text(spread: Spread, digits: int) -> str:
    return spread.text(digits) if spread.n else NONE


def _percent(spread: Spread) -> str:
    return f'{spread.mean:.1%}' if spread.n else NONE
