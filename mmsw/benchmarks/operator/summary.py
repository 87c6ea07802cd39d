"""Totals over the stages of a network, and what they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..words import threads_text
from .contenders import SLAK, SLAK_TRANSPOSED, SLICES

Row = dict
Totals = dict[tuple, dict[str, list[Row]]]
SETTING = ('version', 'crop', 'batch', 'threads', 'dtype', 'mode')
_FLOORS = ('floor', 'arithmetic_floor', 'bytes_floor')


def summary(rows: Iterable[Row]) -> list[Row]:
    """Times over the stages together, and their ratios, for every setting.

    A contender that lacks a stage is left out of its setting.

    Returns:
        One entry per contender and setting: total milliseconds; how many times as long as the
        total floor, its arithmetic alone and its bytes alone it takes; and how many times as fast
        as small conv + slices, the SLaK pair (as written, and with its wide side transposed) and
        the assembled torch backend it is (``None`` where one of these is missing).
    """
    entries = []
    for key, names in _whole_contenders(row for row in rows if not row['sweep']).items():
        totals = {name: _total(found) for name, found in names.items()}
        for name, found in names.items():
            total = totals[name]
            entries.append(
                dict(
                    zip(SETTING, key, strict=True),
                    name=name,
                    kind=found[0]['kind'],
                    stages=len(found),
                    total_ms=total,
                    **{f'{floor}_ratio': total / _total(found, floor) for floor in _FLOORS},
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


def comparisons(rows: Sequence[Row]) -> list[Row]:
    """Pruned over dense and half precision over float32, over the stages together.

    Returns:
        One entry per contender and setting: what is compared with what, and the ratio of the times.
    """
    entries = []
    for reps, sweep in sweeps(rows):
        dense = _whole_contenders(row for row in sweep if row['sparsity'] == 0)
        for share in sorted({row['sparsity'] for row in sweep} - {0}):
            pruned = _whole_contenders(row for row in sweep if row['sparsity'] == share)
            entries += _ratios(pruned, dense, f'{share:.0%} pruned over dense, R = {reps}')
    by_type = _whole_contenders(row for row in rows if not row['sweep'])
    for name in dict.fromkeys(key[SETTING.index('dtype')] for key in by_type):
        if name != 'float32':
            half = {key: names for key, names in by_type.items() if name in key}
            entries += _ratios(half, by_type, f'{name} over float32')
    return entries


def sweeps(rows: Sequence[Row]) -> list[tuple[int, list[Row]]]:
    """Rows of the sweep with one repetition, and of the one with more, and how many these are."""
    found = [row for row in rows if row['sweep']]
    single = [row for row in found if row['num_reps'] == 1]
    more = [row for row in found if row['num_reps'] > 1]
    return [(max(row['num_reps'] for row in part), part) for part in (single, more) if part]


def _ratios(above: Totals, below: Totals, what: str) -> Iterator[Row]:
    for key, names in above.items():
        values = dict(zip(SETTING, key, strict=True))
        base = below.get(tuple((values | dict(dtype='float32')).values()), {})
        for name, found in names.items():
            other = base.get(name.removesuffix(', masked'), [])
            if len(other) == len(found):
                yield dict(values, name=name, what=what, ratio=_total(found) / _total(other))


def _whole_contenders(rows: Iterable[Row]) -> Totals:
    """Rows by setting and name; a contender that lacks a stage is left out of its setting."""
    settings: Totals = {}
    for row in rows:
        settings.setdefault(setting(row), {}).setdefault(row['name'], []).append(row)
    for names in settings.values():
        stages = max(len(found) for found in names.values())
        for name in [name for name, found in names.items() if len(found) < stages]:
            del names[name]
    return settings


def _total(rows: Sequence[Row], key: str = 'median') -> float:
    return sum(row[f'{key}_ms'] for row in rows)


def setting(row: Row) -> tuple:
    """What the rows of one table have in common."""
    return tuple(row[name] for name in SETTING)


def title(key: tuple) -> str:
    """A setting in words."""
    version, crop, batch, threads, dtype, mode = key
    half = '' if dtype == 'float32' else f', {dtype}'
    return f'{mode}: {version}, crop {crop}, batch {batch}, {threads_text(threads)}{half}'
