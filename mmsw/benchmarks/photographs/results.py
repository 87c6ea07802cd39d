"""What the runs and the measurements say together, as the JSON file of the page holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..comparison import Row
from ..measure import machine, training_device
from ..runs import finished
from ..transfer.plan import TransferRun
from .plan import SPARSE, Preset

KIND = 'photographs'
KIND_FULL_SIZE = 'photographs_full_size'
# What the tables need of the result of a run.
_KEPT = ('scores', 'curve', 'seconds_per_iteration', 'threads', 'density_after')
# What the table of the runs at full size needs beside it.
_COSTS = ('parameters_used', 'macs_used')


def collect(
    preset: Preset,
    comparison: Sequence[TransferRun],
    transfer: Mapping[int, Sequence[TransferRun]],
    times: dict[str, Any] | None,
) -> dict[str, Any]:
    """Gather what is finished of the comparison and of the fine-tuning.

    Args:
        preset: How much was trained.
        comparison: Runs from random values.
        transfer: Fine-tuning, by share of pruned filters.
        times: Of :func:`~.times.measure_times`; None where they were not measured.

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
    return {
        'machine': machine(training_device()),
        'settings': dataclasses.asdict(preset),
        'networks': [
            {'network': name, **_group([run for run in comparison if run.network.name == name])}
            for name in networks
        ],
        'starts': starts,
        'times': times,
    }


def collect_full_size(
    preset: Preset, runs: Sequence[TransferRun], classes: Callable[[Path], dict[str, float]]
) -> dict[str, Any]:
    """Gather what is finished of the runs at full size.

    Args:
        preset: How much was trained.
        runs: The runs.
        classes: Gives the IoU of each class from the folder of a run, see
            :func:`~.classes.class_scores`.

    Returns:
        Plain data for JSON.
    """
    return {
        'machine': machine(training_device()),
        'settings': dataclasses.asdict(preset.long),
        'runs': [
            {
                'network': run.network.name,
                **_kept(result),
                **{key: result[key] for key in _COSTS},
                'classes': classes(run.folder),
            }
            for run, result in finished(runs)
        ],
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
