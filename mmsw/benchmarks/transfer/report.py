"""The report of a benchmark: a Markdown table, JSON with everything, and words that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .. import report as shared
from ..comparison import (
    REFERENCE,
    Comparison,
    Row,
    compare,
    compare_networks,
    conclude,
    paired_difference,
)
from ..report import device_text, notes, progress_text, table, table_of, unequal
from ..runs import Failure, finished
from ..words import NONE
from .networks import Network
from .plan import LONGER, TAUGHT, TransferRun, TransferSettings

_UNTAUGHT = 'sparse'  # what a start that is taught shares everything else with
TASK_TITLES = {'seg': 'Segmentation', 'det': 'Detection'}


def make_rows(
    networks: Sequence[Network], runs: Sequence[TransferRun], starts: Sequence[str]
) -> list[Row]:
    """One row for every network and start, with what is finished."""
    rows = []
    for network in networks:
        for start in starts:
            own = [r for r in runs if r.network is network and r.start == start]
            done = {run.seed: result for run, result in finished(own)}
            rows.append(Row(len(own), done, network.name, network.task, start))
    return rows


def same_conditions(runs: Sequence[TransferRun]) -> list[str]:
    """Runs of one network and seed that did not begin as the others, but for the backbone."""
    return unequal(
        runs,
        lambda run: (run.network.name, run.seed),
        ('first_batches', 'heads_at_start', 'random_at_start'),
    )


def write_report(
    networks: Sequence[Network],
    runs: Sequence[TransferRun],
    settings: TransferSettings,
    failures: Sequence[Failure],
) -> str:
    """Write ``report.md`` and ``results.json`` from what is finished; returns the former."""
    rows = make_rows(networks, runs, settings.starts)
    parts = ['# Downstream transfer', _settings_text(runs, settings), *tables_and_conclusion(rows)]
    parts.append(notes(_notes(runs), failures))
    kind = 'benchmark_transfer'
    return shared.write_report(settings.out, kind, parts, _summary(rows), runs, failures)


def tables_and_conclusion(rows: Sequence[Row]) -> list[str]:
    """For each task a head and two tables; then what the comparisons of all tasks say."""
    parts, comparisons = [], []
    for task in dict.fromkeys(row.task for row in rows):
        own = [row for row in rows if row.task == task]
        parts += [f'## {TASK_TITLES[task]}', _score_table(own), _cost_table(own)]
        for network in dict.fromkeys(row.network for row in own):
            scored = [row for row in own if row.network == network]
            for score in dict.fromkeys(name for row in scored for name in row.scores):
                comparisons += compare(scored, score) + _taught_or_not(scored, score)
        for score in dict.fromkeys(name for row in own for name in row.scores):
            comparisons += compare_networks(own, score)
    return [*parts, conclude(comparisons)]


def _settings_text(runs: Sequence[TransferRun], settings: TransferSettings) -> str:
    tasks = dict.fromkeys(run.network.task for run in runs)
    budgets = ', '.join(f'{task} {settings.budgets[task]}' for task in tasks)
    longer = sorted({run.iterations for run in runs if run.start == LONGER} - {None})
    if longer:
        budgets += f' ({LONGER}: {" and ".join(map(str, longer))})'
    return (
        f'{progress_text(runs)} Iterations: {budgets}; seeds: {settings.seeds}; '
        f'processes per run: {settings.nproc}; device: {device_text(runs)}.'
    )


def _score_table(rows: Sequence[Row]) -> str:
    scores = list(dict.fromkeys(name for row in rows for name in row.scores)) or ['score']
    references = [
        name
        for name, needed in ((REFERENCE, REFERENCE), (_UNTAUGHT, TAUGHT))
        if any(row.start == needed for row in rows)
    ]
    header = ['network', 'start', 'seeds']
    for score in scores:
        header += [f'{score} [%]', *(f'{score} − {name} [95% interval]' for name in references)]
    header += ['filters before', 'filters after']
    lines = [header]
    for row in rows:
        cells = [row.network, row.start, row.seeds]
        for score in scores:
            cells.append(row.score(score).text() if row.wanted else 'n/a')
            for name in references:
                reference = _compared_with(row, rows, name)
                if reference is None or not row.results:
                    cells.append(NONE)
                else:
                    cells.append(paired_difference(row, reference, score).signed_text())
        cells += [_share(row, f'density_{when}') for when in ('before', 'after')]
        lines.append(cells)
    return table(lines)


def _cost_table(rows: Sequence[Row]) -> str:
    return table_of(
        rows,
        [
            ('network', lambda row: row.network),
            ('start', lambda row: row.start),
            ('iterations', _lengths),
            ('s / iteration', lambda row: _number(row, 'seconds_per_iteration', 1, 3)),
            ('peak memory [MiB]', lambda row: _number(row, 'peak_memory', 2**20, 0)),
            ('parameters [M]', lambda row: _number(row, 'parameters', 1e6, 3)),
            ('used [M]', lambda row: _number(row, 'parameters_used', 1e6, 3)),
            ('GMAC', lambda row: _number(row, 'macs', 1e9, 3)),
            ('GMAC used', lambda row: _number(row, 'macs_used', 1e9, 3)),
            ('input', _sizes),
        ],
    )


def _notes(runs: Sequence[TransferRun]) -> list[str]:
    results = [result for _, result in finished(runs)]
    memory = ', '.join(sorted({result['memory'] for result in results}))
    lines = [
        '± is the sample standard deviation over the seeds; differences are taken seed by seed. '
        'The interval of a difference is that of its mean, by Student’s t.',
        'Filters: share of small filters with a weight that is not zero, at the start and in the '
        'final file; of a backbone without such filters, the share of its weights. Used: without '
        'what is pruned.',
    ]
    if results:
        lines.append(
            'Seconds: median over all iterations, data included, evaluation and saving excluded. '
            f'Memory: {memory}, evaluation included.'
        )
        lines += _conditions(runs)
    return lines


def _conditions(runs: Sequence[TransferRun]) -> list[str]:
    """What runs of one seed had in common: those of a network, and those of different networks."""
    lines = []
    starts = Counter((run.network.name, run.seed) for run, _ in finished(runs))
    if any(number > 1 for number in starts.values()):
        odd = same_conditions(runs)
        lines.append(
            'NOT the same data order, augmentation or heads at the start: ' + ', '.join(odd)
            if odd
            else 'Runs of a network with the same seed saw the same first batches, pixel by pixel, '
            'and began with the same heads and random generators.'
        )
    networks = Counter((run.network.task, run.seed) for run, _ in finished(runs))
    if any(number > 1 for number in networks.values()) and set(starts.values()) == {1}:
        odd = unequal(runs, lambda run: (run.network.task, run.seed), ('first_batches',))
        lines.append(
            'The networks did NOT see the same first batches: ' + ', '.join(odd)
            if odd
            else 'Runs of different networks with the same seed saw the same first batches, pixel '
            'by pixel. Their weights at the start differ.'
        )
    return lines


def _summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    summaries = []
    for row in rows:
        scores = {}
        for score in row.scores:
            scores[score] = row.score(score).numbers()
            for name in (REFERENCE, _UNTAUGHT):
                reference = _compared_with(row, rows, name)
                if reference is not None:
                    difference = paired_difference(row, reference, score)
                    scores[score][f'minus_{name}'] = difference.numbers()
        summaries.append(
            {
                'network': row.network,
                'task': row.task,
                'start': row.start,
                'finished': len(row.results),
                'wanted': row.wanted,
                'scores': scores,
            }
        )
    return summaries


def _compared_with(row: Row, rows: Sequence[Row], start: str) -> Row | None:
    """The row of the same network and another start that a row is compared with, if it is."""
    if row.start == start or (start == _UNTAUGHT and row.start != TAUGHT):
        return None
    return next((r for r in rows if r.network == row.network and r.start == start), None)


def _taught_or_not(rows: Sequence[Row], score: str) -> list[Comparison]:
    """What distillation adds to a sparse start, of one network."""
    return [
        Comparison(
            f'{row.network}, {row.start} beside {_UNTAUGHT}, {score}',
            _UNTAUGHT,
            paired_difference(row, reference, score),
        )
        for row in rows
        if row.wanted and (reference := _compared_with(row, rows, _UNTAUGHT)) is not None
    ]


def _share(row: Row, when: str) -> str:
    if row.results and not row.mean(when, 'filters'):
        return f'{row.mean(when, "weights_not_zero"):.2%} of weights'
    value = row.mean(when, 'not_zero')
    return NONE if value is None else f'{value:.2%}'


def _number(row: Row, key: str, unit: float, digits: int) -> str:
    value = row.mean(key)
    return NONE if value is None else f'{value / unit:.{digits}f}'


def _lengths(row: Row) -> str:
    lengths = {result['curve'][-1]['iteration'] for result in row.results.values()}
    return ', '.join(map(str, sorted(lengths))) or NONE


def _sizes(row: Row) -> str:
    sizes = {tuple(result['input_size']) for result in row.results.values()}
    return ', '.join(f'{size[0]}×{size[1]}' for size in sorted(sizes)) or NONE
