"""The picture of an operator benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..words import number, threads_text
from .job import BOTH, FORWARD, FUSED
from .summary import Row, setting, summary, title

_INK = '#222222'
_SOFT = '#777777'
_OWN = '#2f6db3'
_OTHER = '#c9c9c9'
_LINES = ('#2f6db3', '#d1711f', '#3a8f4d', '#8a4fa8', '#777777')
_DPI = 110


def draw(result: dict, path: Path) -> None:
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
    key = setting(dict(last, batch=batch, mode=mode, dtype='float32'))
    shown = [entry for entry in entries if setting(entry) == key]
    shown.sort(key=lambda entry: -entry['total_ms'])
    times = [entry['total_ms'] for entry in shown]
    own = [entry['name'].startswith('mmsw') for entry in shown]
    axis.barh(range(len(shown)), times, color=[_OWN if one else _OTHER for one in own])
    for position, time in enumerate(times):
        axis.text(time * 1.06, position, number(time), va='center', fontsize=8.5, color=_INK)
    axis.set_yticks(range(len(shown)), [entry['name'] for entry in shown], fontsize=8.5)
    axis.set_xscale('log')
    axis.set_xlim(min(times) / 2, max(times) * 4)
    axis.set_xlabel('ms, all stages together (log)', color=_SOFT)
    axis.set_title(title(key).replace(': ', '\n'), fontsize=9.5, color=_INK, loc='left')
    _clean(axis)


def _sweep_lines(axis, rows: Sequence[Row]) -> None:
    rows = [row for row in rows if row['kind'] == FUSED and row['batch'] == rows[0]['batch']]
    if not rows:
        axis.set_axis_off()
        return
    names = list(dict.fromkeys(row['name'] for row in rows))
    for name, colour in zip(names, _LINES, strict=False):
        for mode, style in ((FORWARD, '-'), (BOTH, '--')):
            found = [row for row in rows if row['name'] == name and row['mode'] == mode]
            if not found:
                continue
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
        f'batch {first["batch"]}, {threads_text(first["threads"])}',
        fontsize=9.5, color=_INK, loc='left',
    )  # fmt: skip
    axis.legend(fontsize=8, frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.13), ncols=2)
    _clean(axis)


def _clean(axis) -> None:
    for side in ('top', 'right'):
        axis.spines[side].set_visible(False)
    axis.tick_params(colors=_SOFT, labelcolor=_INK)
