"""Table, figures and plot of an operator benchmark."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..timing_report import opening, write_files
from ..words import number, rate_line, table, threads_text
from . import gpu_model
from .contenders import SLAK, SLAK_TRANSPOSED, SLICES
from .job import FOLDED, FUSED, RUNTIME
from .plot import draw
from .summary import Row, comparisons, setting, summary, sweeps, title


def write_report(result: dict, out: str | os.PathLike[str]) -> None:
    """Write what :func:`~mmsw.benchmarks.operator.benchmark.benchmark_ops` returns to a folder."""
    result = result | dict(summary=summary(result['rows']))
    write_files(
        result, out, 'benchmark_ops', markdown(result),
        lambda plot: draw(result, plot),
    )  # fmt: skip


def markdown(result: dict) -> str:
    """The whole report as Markdown."""
    rows: list[Row] = result['rows']
    lines = opening('Operator benchmark', result, _rate_lines(rows))
    if result['unavailable']:
        lines += ['', '## Backends that are not in this run', '']
        lines += [f'- {name}: {reason}' for name, reason in result['unavailable'].items()]
    lines += ['', '## How to read it', '', _EXPLANATION]
    lines += ['', '## All stages together', '', *_summary_table(summary(rows))]
    if found := comparisons(rows):
        lines += ['', '## Pruned and half precision, all stages together', '']
        lines += _comparison_table(found)
    for key in dict.fromkeys(setting(row) for row in rows if not row['sweep']):
        found = [row for row in rows if not row['sweep'] and setting(row) == key]
        lines += ['', f'## {title(key)}', '', *_stage_table(found)]
    for reps, swept in sweeps(rows):
        for key in dict.fromkeys(setting(row) for row in swept):
            found = [row for row in swept if setting(row) == key]
            head = f'## time against sparsity, R = {reps}, {title(key)}'
            lines += ['', head, '', *_sweep_table(found)]
    lines += gpu_model.section(result['machine'].get('gpu'), rows)
    lines += ['', '## Every row', '', *_full_table(rows), '']
    return '\n'.join(lines)


def _rate_lines(rows: Sequence[Row]) -> list[str]:
    """The rates behind the floors."""
    lines = []
    for threads in dict.fromkeys(row['threads'] for row in rows):
        found = [row for row in rows if row['threads'] == threads]
        for name, key, unit in (
            ('matrix product', 'matmul_per_s', 'giga-multiply-adds/s'),
            ('copy', 'copy_bytes_per_s', 'GB/s, read and written'),
        ):
            rates = [row[key] for row in found]
            lines.append(rate_line(f'{name}, {threads_text(threads)}', rates, unit))
    return lines


_EXPLANATION = """\
Time is the median of samples taken in turns with the other contenders of the shape; the spread is
the interquartile range over the median, n the number of samples. There are two
floors, of rates measured among the same samples: "x arithmetic" is the time over the multiply-adds
at the rate of a float32 matrix product of side 2048, "x bytes" that over the bytes that must be
read and written at the rate of a copy, and "x floor" that over the larger of the two. Whatever
computes the operator (a backend, another runtime, or small convolutions followed by shifts) has the
arithmetic of the direct cross form, `C*H*W*(2*N*L + N*N)` multiply-adds, three times as many with
the backward pass; every other row has its own. Taps that only meet padding are counted, and an
arithmetic that takes fewer multiplications is not, so a row can go below 1. With one repetition a
pruned filter is an empty slot, and the sweep's floor shrinks with it; with more repetitions it does
not. "masked" rows do not ask for the gradient of pruned filters.
Memory is the most that torch's allocator held beyond the inputs, outputs included. Threads are
torch's; Taichi keeps its own. Every row's numbers agreed with the definition before it was timed.\
"""


def _summary_table(entries: Sequence[Row]) -> list[str]:
    head = (
        'contender', 'network', 'batch', 'threads', 'type', 'pass', 'total ms', 'x floor',
        'x arithmetic', 'x bytes', 'faster than slices', 'than SLaK pair', 'than it transposed',
        'than torch',
    )  # fmt: skip
    ratios = 'floor_ratio', 'arithmetic_floor_ratio', 'bytes_floor_ratio'
    speeds = 'over_slices', 'over_slak', 'over_slak_transposed', 'over_torch'
    return table(
        head,
        (
            (
                *_key_cells(entry),
                number(entry['total_ms']),
                *(number(entry[name]) for name in ratios),
                *(number(entry[name], 'x') for name in speeds),
            )
            for entry in entries
            if entry['kind'] in (FUSED, FOLDED, RUNTIME)
            or entry['name'] in (SLICES, SLAK, SLAK_TRANSPOSED)
        ),
    )


def _comparison_table(entries: Sequence[Row]) -> list[str]:
    whats = list(dict.fromkeys(entry['what'] for entry in entries))
    ratios = {(*_key_cells(entry), entry['what']): entry['ratio'] for entry in entries}
    keys = dict.fromkeys(key[:-1] for key in ratios)
    return table(
        ('contender', 'network', 'batch', 'threads', 'type', 'pass', *whats),
        ((*key, *(number(ratios.get((*key, what))) for what in whats)) for key in keys),
    )


def _key_cells(entry: Row) -> tuple[str, ...]:
    network = f'{entry["version"]} {entry["crop"]}'
    sizes = str(entry['batch']), str(entry['threads'])
    return entry['name'], network, *sizes, entry['dtype'], entry['mode']


def _stage_table(rows: Sequence[Row]) -> list[str]:
    stages = {row['stage']: row for row in rows}
    head = ['contender, ms (x floor)']
    for stage, row in sorted(stages.items()):
        size = f'{row["channels"]}, {row["size"]}x{row["size"]}'
        head.append(f'{stage}: {size}, {row["big_kernel"]}/{row["small_kernel"]}')
    body = []
    for name in dict.fromkeys(row['name'] for row in rows):
        found = {row['stage']: row for row in rows if row['name'] == name}
        cells = [
            f'{number(found[stage]["median_ms"])} ({number(found[stage]["ratio"])})'
            if stage in found
            else '–'
            for stage in sorted(stages)
        ]
        peaks = [row['peak_bytes'] for row in found.values() if row['peak_bytes']]
        body.append((name, *cells, number(max(peaks) / 2**20 if peaks else None)))
    return table([*head, 'peak MiB'], body)


def _sweep_table(rows: Sequence[Row]) -> list[str]:
    """Every stage, then all together with how many times as fast as unpruned they are."""
    shares = sorted({row['sparsity'] for row in rows})
    names = list(dict.fromkeys(row['name'] for row in rows))
    times = {(row['name'], row['shape'], row['sparsity']): row['median_ms'] for row in rows}
    body = []
    for name in names:
        for shape in dict.fromkeys(row['shape'] for row in rows):
            cells = [number(times.get((name, shape, share))) for share in shares]
            body.append((f'{name}, {shape}', *cells))
    for name in names:
        dense = _sweep_total(times, name.removesuffix(', masked'), shares[0])
        totals = [_sweep_total(times, name, share) for share in shares]
        cells = [
            f'{number(total)} ({number(dense / total, "x")})' if total else '–' for total in totals
        ]
        body.append((f'{name}, all stages', *cells))
    return table(['ms', *(f'{share:.0%}' for share in shares)], body)


def _sweep_total(times: dict[tuple, float], name: str, share: float) -> float:
    return sum(time for (who, _, pruned), time in times.items() if (who, pruned) == (name, share))


def _full_table(rows: Sequence[Row]) -> list[str]:
    head = (
        'shape', 'R', 'pruned', 'batch', 'threads', 'type', 'pass', 'contender', 'ms', 'spread',
        'n', 'arithmetic floor ms', 'bytes floor ms', 'x floor', 'peak MiB', 'deviation',
    )  # fmt: skip
    return table(
        head,
        (
            (
                row['shape'], str(row['num_reps']), f'{row["sparsity"]:.0%}', str(row['batch']),
                str(row['threads']), row['dtype'], row['mode'], row['name'],
                f'{row["median_ms"]:.3f}', f'{row["spread"]:.0%}', str(row['samples']),
                f'{row["arithmetic_floor_ms"]:.3f}', f'{row["bytes_floor_ms"]:.3f}',
                number(row['ratio']),
                number(row['peak_bytes'] and row['peak_bytes'] / 2**20),
                f'{row["deviation"]:.1e}',
            )
            for row in rows
        ),
    )  # fmt: skip
