"""The picture of an operator benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsw.figure import INK, SOFT, picture, style_of, tinted, title

from ..words import number, threads_text
from .contenders import SLAK_TRANSPOSED, SLICES
from .job import BOTH, FOLDED, FORWARD, FUSED, RUNTIME
from .summary import Row, setting, summary, sweeps

_REFERENCE = 'depthwise 7x7'  # another operator: a line, no bar
_PASSES = {FORWARD: 'forward', BOTH: 'forward + backward'}
_LABELS = {SLAK_TRANSPOSED: 'SLaK pair, transposed'}
_MOST = 12  # times as long as the fastest: what takes longer is off the scale
_TIME = 'sum of {} layers,\none per stage [ms]'
_SIDE = 0.11  # of the height of a panel: least distance of two labels


def draw(result: dict, path: Path) -> bool:
    """Times of both passes beside a 7 x 7 convolution, and time against the pruned share.

    Args:
        result: What ``benchmark.json`` holds; parts may be missing.
        path: Picture to write, as SVG and as PNG.

    Returns:
        Whether there was something to draw.
    """
    bars = {mode: _shown(result['rows'], mode) for mode in _PASSES}
    if not result['rows']:
        return False
    order = _order(bars)
    names = [name for name in order if name != _REFERENCE]
    with picture(path, max(2.6, 1.3 + 0.2 * len(names))) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.05, 1, 1.1])
        for axes, letter, mode in ((left, 'a', FORWARD), (middle, 'b', BOTH)):
            _draw_bars(axes, bars[mode], names)
            title(axes, letter, _PASSES[mode].capitalize(), pad=16)
        left.set_yticks(range(len(names)), [_LABELS.get(name, name) for name in names])
        middle.set_yticks(range(len(names)), [])
        _draw_sweep(right, [row for row in result['rows'] if row['sweep']])
        title(right, 'c', 'With pruned filters', pad=16)
        figure.supxlabel(_where(result, bars), x=0.01, ha='left', fontsize=8, color=SOFT)
    return True


def _shown(rows: Sequence[Row], mode: str) -> list[Row]:
    """Entries of the last network at its smallest batch, without ways to shift but slices."""
    found = [row for row in rows if not row['sweep'] and row['mode'] == mode]
    found = [row for row in found if row['dtype'] == 'float32']
    if not found:
        return []
    batch = min(row['batch'] for row in found)
    key = setting(next(row for row in reversed(found) if row['batch'] == batch))
    own = [row for row in found if setting(row) == key]
    entries = [entry for entry in summary(own) if _belongs(entry)]
    for entry in entries:
        parts = [row for row in own if row['name'] == entry['name']]
        entry['half_ms'] = sum(row['median_ms'] * row['spread'] for row in parts) / 2
    return entries


def _belongs(entry: Row) -> bool:
    name = entry['name']
    if name.startswith('mmsw cpp, '):  # its other arithmetic
        return False
    return (
        entry['kind'] in (FUSED, FOLDED, RUNTIME)
        or name in (SLICES, _REFERENCE)
        or name.startswith('SLaK')
    )


def _order(bars: dict[str, list[Row]]) -> list[str]:
    """Of the forward pass, the fastest first; who only takes part in the other comes last."""
    ranked = [sorted(entries, key=lambda entry: entry['total_ms']) for entries in bars.values()]
    return list(dict.fromkeys(entry['name'] for entries in ranked for entry in entries))


def _draw_bars(axes: Any, entries: Sequence[Row], names: Sequence[str]) -> None:
    times = {entry['name']: entry for entry in entries}
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(_TIME.format(max((entry['stages'] for entry in entries), default=0)))
    if not entries:
        return
    totals = [times[name]['total_ms'] for name in names if name in times]
    limit = _MOST * min(totals, default=1.0)
    line = times[_REFERENCE]['total_ms'] if _REFERENCE in times else 0.0
    end = 1.25 * max([line, *(total for total in totals if total <= limit)])
    beside = line + 0.03 * end
    for place, name in enumerate(names):
        if name not in times:
            axes.text(beside, place, 'forward only', va='center', fontsize=8, color=SOFT)
            continue
        time, half = times[name]['total_ms'], times[name]['half_ms']
        if time > limit:
            text = f'{number(time)} ms, off the scale'
            axes.text(beside, place, text, va='center', fontsize=8)
            continue
        own = name.startswith('mmsw')
        colour = tinted(style_of(name).colour, 1.0 if own else 0.7)
        axes.barh(place, time, 0.62, color=colour)
        axes.errorbar(time, place, xerr=half, color=INK, capsize=2, linewidth=0.9, capthick=0.9)
        axes.text(time + half + end * 0.02, place, number(time), va='center', fontsize=8)
    if _REFERENCE in times:
        style = style_of(_REFERENCE)
        axes.axvline(line, color=style.colour, linestyle=style.line, linewidth=1.1)
        axes.text(
            line, 1.0, f'{style.label}: {number(line)}', transform=axes.get_xaxis_transform(),
            va='bottom', ha='left', fontsize=8,
        )  # fmt: skip
    axes.set_xlim(0, end)
    axes.grid(axis='x')
    axes.tick_params(axis='y', length=0)


def _draw_sweep(axes: Any, rows: Sequence[Row]) -> None:
    """The fastest kind of backend only; pruned shares as they were measured."""
    names = dict.fromkeys(row['name'] for row in rows if row['kind'] == FUSED)
    preferred = [name for name in ('mmsw cuda', 'mmsw cpp', 'mmsw taichi') if name in names]
    axes.set_xlabel('filters pruned [%]')
    if not names:
        return
    name = (preferred or list(names))[0]
    own = [row for row in rows if row['name'] == name and row['batch'] == rows[0]['batch']]
    style, ends = style_of(name), []
    for reps, swept in sweeps(own):
        line, face = ('--', 'none') if reps == 1 else ('-', style.colour)
        for mode, words in _PASSES.items():
            found = [row for row in swept if row['mode'] == mode]
            if not found:
                continue
            shares = sorted({row['sparsity'] for row in found})
            totals, halves = zip(*(_total(found, share) for share in shares), strict=True)
            axes.errorbar(
                [100 * share for share in shares], totals, halves, color=style.colour,
                linestyle=line, marker='o' if mode == FORWARD else 's', markersize=5,
                markerfacecolor=face, capsize=2, linewidth=1.3,
            )  # fmt: skip
            ends.append((totals[-1], f'{words},\nR = {reps}'))
    shares = sorted({100 * row['sparsity'] for row in own})
    step = -(-len(shares) // 5)  # more labels would touch
    axes.set_xticks(shares, minor=True)
    axes.set_xticks(shares[::step], [f'{share:.0f}' for share in shares[::step]])
    axes.set_xlim(-4, shares[-1] * 1.9 + 20)
    axes.set_ylim(0, 1.12 * max(_total_max(own), 1e-9))
    axes.set_ylabel(_TIME.format(len({row['stage'] for row in own})))
    axes.grid(axis='y')
    axes.spines['bottom'].set_bounds(-4, shares[-1] + 4)
    _label_ends(axes, ends, shares[-1] + 6)
    axes.text(0.0, 1.0, name, transform=axes.transAxes, fontsize=8, color=SOFT, va='bottom')


def _total(rows: Sequence[Row], share: float) -> tuple[float, float]:
    """Of all stages: the time, and half of the interquartile ranges."""
    own = [row for row in rows if row['sparsity'] == share]
    time = sum(row['median_ms'] for row in own)
    return time, sum(row['median_ms'] * row['spread'] for row in own) / 2


def _total_max(rows: Sequence[Row]) -> float:
    groups: dict[tuple, float] = {}
    for row in rows:
        key = row['mode'], row['num_reps'], row['sparsity']
        groups[key] = groups.get(key, 0.0) + row['median_ms'] * (1 + row['spread'] / 2)
    return max(groups.values())


def _label_ends(axes: Any, ends: list[tuple[float, str]], place: float) -> None:
    """Name lines where they end, from below, without one label on another."""
    least = _SIDE * 1.3 * axes.get_ylim()[1]
    height = -least
    for value, text in sorted(ends):
        height = max(value, height + least)
        axes.text(place, height, text, va='center', fontsize=8, linespacing=1.0)


def _where(result: dict, bars: dict[str, list[Row]]) -> str:
    machine = result['machine']
    text = f'{machine.get("gpu", machine["cpu"])}, torch {machine["torch"]}, {machine["date"][:10]}'
    found = next((entries[-1] for entries in bars.values() if entries), None)
    if found is None:
        return text
    return (
        f'SW-T {found["version"]}, crop {found["crop"]}, batch {found["batch"]}, '
        f'{threads_text(found["threads"])}, float32. {text}. Whiskers: interquartile range.'
    )
