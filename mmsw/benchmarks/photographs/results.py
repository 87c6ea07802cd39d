"""What the runs and the measurements say together, as the JSON file of the page holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..comparison import Row
from ..measure import machine
from ..runs import finished, result_of
from ..transfer.plan import TransferRun
from .plan import SPARSE, Preset

KIND = 'photographs'
# What the tables need of the result of a run.
_KEPT = ('scores', 'curve', 'seconds_per_iteration', 'threads', 'density_after')


def collect(
    preset: Preset,
    comparison: Sequence[TransferRun],
    transfer: Mapping[int, Sequence[TransferRun]],
    long: Sequence[TransferRun],
    times: dict[str, Any] | None,
    classes: dict[str, Any] | None,
) -> dict[str, Any]:
    """Gather what is finished.

    Args:
        preset: How much was trained.
        comparison: Runs from random values.
        transfer: Fine-tuning, by share of pruned filters.
        long: The run at full size.
        times: Of :func:`~.times.measure_times`; None where they were not measured.
        classes: IoU of each class, see :func:`~.pictures.class_scores`.

    Returns:
        Plain data for JSON.
    """
    networks = list(dict.fromkeys(run.network.name for run in comparison))
    starts = []
    for share, runs in transfer.items():
        for start in dict.fromkeys(run.start for run in runs):
            own = [run for run in runs if run.start == start]
            pruned = share if start in SPARSE else 0
            starts.append({'start': start, 'share': pruned, **_group(own)})
    one = result_of(long[0]) if long else None
    return {
        'machine': machine(torch.device('cuda' if torch.cuda.is_available() else 'cpu')),
        'settings': vars(preset),
        'networks': [
            {'network': name, **_group([run for run in comparison if run.network.name == name])}
            for name in networks
        ],
        'starts': starts,
        'long': None if one is None else {'network': long[0].network.name, **_kept(one)},
        'classes': classes,
        'times': times,
    }


def rows_of(
    entries: Sequence[Mapping[str, Any]], name: Callable[[Mapping[str, Any]], str]
) -> list[Row]:
    """Entries of the result as rows whose differences can be taken.

    Args:
        entries: ``networks`` or ``starts`` of what :func:`collect` returns.
        name: What an entry is called.
    """
    return [
        Row(
            entry['wanted'],
            {int(seed): found for seed, found in entry['results'].items()},
            name(entry),
            '',
            entry.get('start', ''),
        )
        for entry in entries
    ]


def _group(runs: Sequence[TransferRun]) -> dict[str, Any]:
    results = {str(run.seed): _kept(result) for run, result in finished(runs)}
    return {'wanted': len(runs), 'results': results}


def _kept(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in _KEPT}
