"""Table, figures and plot of an operator benchmark."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmsw.json_file import write_json
from mmsw.whole_file import write_text, write_whole

from . import gpu_model
from .contenders import BOTH, FORWARD, FUSED, SLAK, SLAK_TRANSPOSED, SLICES

Row = dict
_INK = '#222222'
_SOFT = '#777777'
_OWN = '#2f6db3'
_OTHER = '#c9c9c9'
_LINES = ('#2f6db3', '#d1711f', '#3a8f4d', '#8a4fa8', '#777777')
_DPI = 110
_STEADY = 1.5  # highest over lowest rate of a machine that does nothing else


def write_report(result: dict, out: str | os.PathLike[str]) -> list[Path]:
    """Write ``benchmark.json``, ``benchmark.md`` and, with matplotlib, ``benchmark.png``.

    Args:
        result: What :func:`~mmsw.benchmarks.operator.benchmark.benchmark_ops` returns.
        out: Folder; existing files of these names are replaced, each of them whole or not at all.

    Returns:
        The files.
    """
    result = result | dict(summary=summary(result['rows']))
    folder = Path(out)
    table, figures, plot = (folder / f'benchmark.{ending}' for ending in ('md', 'json', 'png'))
    write_text(table, markdown(result))
    write_json(figures, 'benchmark_ops', result)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return [table, figures]
    write_whole(plot, lambda temporary: _plot(result, temporary))
    return [table, figures, plot]


def summary(rows: Iterable[Row]) -> list[Row]:
    """Times over the stages together, and their ratios, for every setting.

    A contender that lacks a stage is left out of its setting.

    Returns:
        One entry per contender and setting: total milliseconds, how many times as long as the
        total floor it takes, and how many times as fast as small conv + slices, the SLaK pair (as
        written, and with its wide side transposed) and the assembled torch backend it is (``None``
        where one of these is missing).
    """
    settings: dict[tuple, dict[str, list[Row]]] = {}
    for row in rows:
        if not row['sweep']:
            names = settings.setdefault(_setting(row), {})
            names.setdefault(row['name'], []).append(row)
    entries = []
    for setting, names in settings.items():
        stages = max(len(found) for found in names.values())
        totals = {
            name: sum(row['median_ms'] for row in found)
            for name, found in names.items()
            if len(found) == stages
        }
        for name, total in totals.items():
            found = names[name]
            entries.append(
                dict(
                    zip(('version', 'crop', 'batch', 'threads', 'mode'), setting, strict=True),
                    name=name,
                    kind=found[0]['kind'],
                    stages=stages,
                    total_ms=total,
                    floor_ratio=total / sum(row['floor_ms'] for row in found),
                    **{
                        key: totals[other] / total if other in totals else None
                        for key, other in (
                            ('over_slices', SLICES),
                            ('over_slak', SLAK),
                            ('over_slak_transposed', SLAK_TRANSPOSED),
                            ('over_torch', 'mmsw torch'),
                        )
                    },
                )
            )
    return entries


def markdown(result: dict) -> str:
    """The whole report as Markdown."""
    rows: list[Row] = result['rows']
    lines = ['# Operator benchmark', '']
    lines += [f'- {key}: {value}' for key, value in result['machine'].items()]
    lines += [f'- duration: {result["seconds"]} s', *_rate_lines(rows)]
    for title, found in (('Errors', result['errors']), ('Left out', result['left_out'])):
        if found:
            lines += ['', f'## {title}', '', *(f'- {item}' for item in found)]
    if result['unavailable']:
        lines += ['', '## Backends that are not in this run', '']
        lines += [f'- {name}: {reason}' for name, reason in result['unavailable'].items()]
    lines += ['', '## How to read it', '', _EXPLANATION]
    lines += ['', '## All stages together', '', *_summary_table(summary(rows))]
    for setting in dict.fromkeys(_setting(row) for row in rows if not row['sweep']):
        found = [row for row in rows if not row['sweep'] and _setting(row) == setting]
        lines += ['', f'## {_title(setting)}', '', *_stage_table(found)]
    sweep = [row for row in rows if row['sweep']]
    for mode in dict.fromkeys(row['mode'] for row in sweep):
        found = [row for row in sweep if row['mode'] == mode]
        lines += ['', f'## {mode} time against sparsity, R = 1', '', *_sweep_table(found)]
    lines += gpu_model.section(result['machine'].get('gpu'), rows)
    lines += ['', '## Every row', '', *_full_table(rows), '']
    return '\n'.join(lines)


def _rate_lines(rows: Sequence[Row]) -> list[str]:
    """The rates behind the floors, and a warning if the machine was busy with something else."""
    lines = []
    for threads in dict.fromkeys(row['threads'] for row in rows):
        found = [row for row in rows if row['threads'] == threads]
        for name, key, unit in (
            ('matrix product', 'matmul_per_s', 'giga-multiply-adds/s'),
            ('copy', 'copy_bytes_per_s', 'GB/s, read and written'),
        ):
            rates = [row[key] / 1e9 for row in found]
            low, middle, high = min(rates), statistics.median(rates), max(rates)
            busy = ': **the machine was not idle**' if high > _STEADY * low else ''
            lines.append(
                f'- {name}, {_threads(threads)}: {middle:.1f} {unit} '
                f'({low:.1f} to {high:.1f} over the run{busy})'
            )
    return lines


_EXPLANATION = """\
Time is the median of samples taken in turns with the other contenders of the shape; the spread is
the interquartile range over the median, n the number of samples. The floor is the larger of two
times measured among the same samples: the multiply-adds at the rate of a float32 matrix product of
side 2048, and the bytes that must be read and written at the rate of a copy. Whatever computes the
operator (a backend, or small convolutions followed by shifts) has the floor of the fused operator,
`C*H*W*(2*N*L + N*N)` multiply-adds, three times as many with the backward pass; every other row has
the floor of its own arithmetic. Taps that only meet padding are counted, so small maps can go below
1. With one repetition a pruned filter is an empty slot, and the sweep's floor shrinks with it.
Memory is the most that torch's allocator held beyond the inputs, outputs included. Threads are
torch's; Taichi keeps its own. Every row's numbers agreed with the definition before it was timed.\
"""


def _setting(row: Row) -> tuple:
    return row['version'], row['crop'], row['batch'], row['threads'], row['mode']


def _title(setting: tuple) -> str:
    version, crop, batch, threads, mode = setting
    return f'{mode}: {version}, crop {crop}, batch {batch}, {_threads(threads)}'


def _threads(number: int) -> str:
    return f'{number} thread{"s" if number != 1 else ""}'


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rule = ['---', *['---:'] * (len(head) - 1)]
    return [f'| {" | ".join(cells)} |' for cells in (head, rule, *body)]


def _number(value: float | None, unit: str = '') -> str:
    if value is None:
        return '–'
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2
    return f'{value:.{digits}f}{unit}'


def _summary_table(entries: Sequence[Row]) -> list[str]:
    head = (
        'contender', 'network', 'batch', 'threads', 'pass', 'total ms', 'x floor',
        'faster than slices', 'than SLaK pair', 'than it transposed', 'than torch',
    )  # fmt: skip
    return _table(
        head,
        (
            (
                entry['name'],
                f'{entry["version"]} {entry["crop"]}',
                str(entry['batch']),
                str(entry['threads']),
                entry['mode'],
                _number(entry['total_ms']),
                _number(entry['floor_ratio']),
                _number(entry['over_slices'], 'x'),
                _number(entry['over_slak'], 'x'),
                _number(entry['over_slak_transposed'], 'x'),
                _number(entry['over_torch'], 'x'),
            )
            for entry in entries
            if entry['kind'] == FUSED or entry['name'] in (SLICES, SLAK, SLAK_TRANSPOSED)
        ),
    )


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
            f'{_number(found[stage]["median_ms"])} ({_number(found[stage]["ratio"])})'
            if stage in found
            else '–'
            for stage in sorted(stages)
        ]
        peak = max(row['peak_bytes'] for row in found.values()) / 2**20
        body.append((name, *cells, _number(peak)))
    return _table([*head, 'peak MiB'], body)


def _sweep_table(rows: Sequence[Row]) -> list[str]:
    """Every stage, then all together with how many times as fast as unpruned they are."""
    shares = sorted({row['sparsity'] for row in rows})
    names = list(dict.fromkeys(row['name'] for row in rows))
    times = {(row['name'], row['shape'], row['sparsity']): row['median_ms'] for row in rows}
    body = []
    for name in names:
        for shape in dict.fromkeys(row['shape'] for row in rows):
            cells = [_number(times.get((name, shape, share))) for share in shares]
            body.append((f'{name}, {shape}', *cells))
    for name in names:
        totals = [
            sum(time for (who, _, pruned), time in times.items() if (who, pruned) == (name, share))
            for share in shares
        ]
        cells = [f'{_number(total)} ({_number(totals[0] / total, "x")})' for total in totals]
        body.append((f'{name}, all stages', *cells))
    return _table(['ms', *(f'{share:.0%}' for share in shares)], body)


def _full_table(rows: Sequence[Row]) -> list[str]:
    head = (
        'shape', 'R', 'pruned', 'batch', 'threads', 'pass', 'contender', 'ms', 'spread', 'n',
        'arithmetic floor ms', 'bytes floor ms', 'x floor', 'peak MiB', 'deviation',
    )  # fmt: skip
    return _table(
        head,
        (
            (
                row['shape'], str(row['num_reps']), f'{row["sparsity"]:.0%}', str(row['batch']),
                str(row['threads']), row['mode'], row['name'], f'{row["median_ms"]:.3f}',
                f'{row["spread"]:.0%}', str(row['samples']), f'{row["arithmetic_floor_ms"]:.3f}',
                f'{row["bytes_floor_ms"]:.3f}', _number(row['ratio']),
                f'{row["peak_bytes"] / 2**20:.1f}', f'{row["deviation"]:.1e}',
            )
            for row in rows
        ),
    )  # fmt: skip


def _plot(result: dict, path: Path) -> None:
    """Total time over the stages of the last network, both passes, and time against sparsity."""
    from matplotlib.figure import Figure

    entries = summary(result['rows'])
    sweep = [row for row in result['rows'] if row['sweep']]
    figure = Figure(figsize=(13, 5.2), layout='constrained')
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 0.9])
    for axis, mode in zip(axes, (FORWARD, BOTH), strict=False):
        _bars(axis, [entry for entry in entries if entry['mode'] == mode], mode)
    _sweep_lines(axes[2], sweep)
    machine = result['machine']
    figure.suptitle(
        f'{machine.get("gpu", machine["cpu"])}, torch {machine["torch"]}, {machine["date"][:10]}',
        fontsize=10, color=_SOFT, x=0.01, ha='left',
    )  # fmt: skip
    figure.savefig(path, dpi=_DPI)


def _bars(axis, entries: Sequence[Row], mode: str) -> None:
    if not entries:
        axis.set_axis_off()
        return
    last = entries[-1]
    batch = min(entry['batch'] for entry in entries)
    setting = (last['version'], last['crop'], batch, last['threads'], mode)
    shown = [entry for entry in entries if _setting(entry) == setting]
    shown.sort(key=lambda entry: -entry['total_ms'])
    times = [entry['total_ms'] for entry in shown]
    own = [entry['name'].startswith('mmsw') for entry in shown]
    axis.barh(range(len(shown)), times, color=[_OWN if one else _OTHER for one in own])
    for position, time in enumerate(times):
        axis.text(time * 1.06, position, _number(time), va='center', fontsize=8.5, color=_INK)
    axis.set_yticks(range(len(shown)), [entry['name'] for entry in shown], fontsize=8.5)
    axis.set_xscale('log')
    axis.set_xlim(min(times) / 2, max(times) * 4)
    axis.set_xlabel('ms, all stages together (log)', color=_SOFT)
    axis.set_title(_title(setting).replace(': ', '\n'), fontsize=9.5, color=_INK, loc='left')
    _clean(axis)


def _sweep_lines(axis, rows: Sequence[Row]) -> None:
    rows = [row for row in rows if row['kind'] == FUSED]
    if not rows:
        axis.set_axis_off()
        return
    names = list(dict.fromkeys(row['name'] for row in rows))
    for name, colour in zip(names, _LINES, strict=False):
        for mode, style in ((FORWARD, '-'), (BOTH, '--')):
            found = [row for row in rows if row['name'] == name and row['mode'] == mode]
            shares = sorted({row['sparsity'] for row in found})
            totals = [
                sum(row['median_ms'] for row in found if row['sparsity'] == share)
                for share in shares
            ]
            axis.plot(
                [100 * share for share in shares], totals, style,
                color=colour, marker='o', markersize=3.5, label=f'{name}, {mode}',
            )  # fmt: skip
    axis.set_yscale('log')
    axis.set_xlabel('pruned filters, %', color=_SOFT)
    axis.set_ylabel('ms, all stages together (log)', color=_SOFT)
    first = rows[0]
    axis.set_title(
        f'time against sparsity, R = 1\n{first["version"]}, crop {first["crop"]}, '
        f'batch {first["batch"]}, {_threads(first["threads"])}',
        fontsize=9.5, color=_INK, loc='left',
    )  # fmt: skip
    axis.legend(fontsize=8, frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.13), ncols=2)
    _clean(axis)


def _clean(axis) -> None:
    for side in ('top', 'right'):
        axis.spines[side].set_visible(False)
    axis.tick_params(colors=_SOFT, labelcolor=_INK)
