"""Time per image of the trained networks, folded, with nothing else at work."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmsw.apis import init_model
from mmsw.json_file import read_json, write_json
from mmsw.threads import use_threads

from ..digests import file_digest
from ..measure import machine, measure, seconds, timing_of
from ..runs import CONFIG, FINAL
from ..transfer.costs import network_costs

SIZE = (360, 480)  # height and width of an image of CamVid
_THREADS = 1
_ROUNDS = 30
_BUDGET = 6.0  # seconds per network
KIND = 'photographs_times'


def measure_times(
    runs: Mapping[str, Path], path: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Time the networks in turns, and count what each does; keeps what an earlier call measured.

    What is timed is one call of the folded segmentor: from the image tensor to the label map, of
    360 x 480 pixels both, on one thread.

    Args:
        runs: Name of a network -> folder of a finished run.
        path: JSON file of the times.
        progress: Called with a line of text now and then.

    Returns:
        What the file holds: ``machine``, and ``networks``, by name.
    """
    weights = {name: file_digest(folder / FINAL) for name, folder in runs.items()}
    known = read_json(path, KIND)
    if known is not None and known['weights'] == weights:
        return known
    device = torch.device('cpu')
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    progress(f'timing {len(runs)} folded networks at {SIZE[0]} x {SIZE[1]}, {_THREADS} thread')
    counts, calls = {}, []
    with use_threads(_THREADS), torch.inference_mode():
        for name, folder in runs.items():
            trained = init_model(folder / CONFIG, folder / FINAL)
            counts[name] = network_costs(trained, trained.cfg, SIZE)
            folded = init_model(folder / CONFIG, folder / FINAL, deploy=True)
            calls.append(partial(_label_map, folded, image))
        for call in calls:  # the first call of a network is slower
            call()
        estimates = [seconds(call, device) for call in calls]
        samples = measure(calls, estimates, device, _ROUNDS, _BUDGET, least=5)
    first = statistics.median(samples[0])
    networks = {
        name: {
            **timing_of(times),
            'relative': statistics.median(times) / first,
            **{key: counts[name][key] for key in ('parameters', 'parameters_used')},
            **{key: counts[name][key] for key in ('macs', 'macs_used', 'backbone')},
        }
        for name, times in zip(runs, samples, strict=True)
    }
    found = {
        'machine': machine(device),
        'threads': _THREADS,
        'size': list(SIZE),
        'weights': weights,
        'networks': networks,
    }
    write_json(path, KIND, found)
    return found


def _label_map(model: nn.Module, image: Tensor) -> Tensor:
    return model(image, mode='predict')[0].pred_sem_seg.data
