"""Time and work of the shift-wise operators alone, at the weights that a run trained."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

import mmsw
from mmsw.analysis.complexity.operator_work import layer_work
from mmsw.apis.config import register_toolbox
from mmsw.checkpoint import load_checkpoint_file
from mmsw.json_file import read_json, write_json
from mmsw.models import ShiftWiseConv2d
from mmsw.ops import shift_wise_conv2d
from mmsw.ops.functional import backend_for
from mmsw.threads import use_threads

from ..digests import digest, source_digest
from ..measure import measure, seconds
from ..runs import FINAL, RESULT
from .plan import SparsityRun

OPERATOR = 'operator.json'
_KIND = 'training_operator'
_MODES = ('forward', 'forward_backward')
_ROUNDS = 31
_BUDGET = 1.5  # seconds of a call, in each mode
_CPU = torch.device('cpu')


def operator_of(run: SparsityRun) -> dict[str, Any] | None:
    """What was measured for a run; None if it was not, or not for its present result."""
    found = read_json(run.folder / OPERATOR, _KIND)
    return found if found is not None and found['of'] == _identity(run) else None


def measure_operators(
    cfg: Config, runs: Sequence[SparsityRun], progress: Callable[[str], None]
) -> None:
    """Measure every finished run that is not measured yet, one after the other, on one thread.

    Nothing else of the benchmark runs meanwhile. The operators of a run are timed in turns with the
    same operators without a pruned weight; for a dense run both are alike, so that its ratio shows
    what the measurement itself is worth.

    Args:
        cfg: What was trained.
        runs: The runs.
        progress: Called with a line of text now and then.
    """
    open_runs = [
        run for run in runs if (run.folder / RESULT).is_file() and operator_of(run) is None
    ]
    if not open_runs:
        return
    progress(f'timing the operators of {len(open_runs)} runs, one at a time')
    model = _build(cfg)
    sizes = _map_sizes(cfg, model)
    with use_threads(1):
        for run in open_runs:
            model.load_state_dict(load_checkpoint_file(run.folder / FINAL)['state_dict'])
            found = _measure(model, sizes)
            write_json(run.folder / OPERATOR, _KIND, {'of': _identity(run), **found})
            progress(
                f'  {run.name}: forward {found["forward"]["ratio"]:.2f} x dense, with backward '
                f'{found["forward_backward"]["ratio"]:.2f}, work {found["work_left"]:.1%}'
            )


def _identity(run: SparsityRun) -> str:
    return digest([read_json(run.folder / RESULT, 'training_result'), _source()])


@functools.cache
def _source() -> str:
    return source_digest([Path(__file__), Path(mmsw.__file__).parent / 'ops'])


def _build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        return MODELS.build(copy.deepcopy(cfg.model)).eval()


@torch.no_grad()
def _map_sizes(cfg: Config, model: nn.Module) -> dict[str, tuple[int, int, int]]:
    """By name of a shift-wise layer, batch, rows and columns of the map that training gives it."""
    sizes = {}
    handles = [
        layer.register_forward_hook(
            lambda module, inputs, output, name=name: sizes.update(
                {name: (inputs[0].shape[0], *inputs[0].shape[2:])}
            )
        )
        for name, layer in _layers(model)
    ]
    loader = copy.deepcopy(cfg.train_dataloader)
    loader.num_workers, loader.persistent_workers = 0, False
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        batch = next(iter(Runner.build_dataloader(loader, seed=0)))
        model.test_step(batch)
    for handle in handles:
        handle.remove()
    return sizes


def _layers(model: nn.Module) -> list[tuple[str, ShiftWiseConv2d]]:
    return [(n, part) for n, part in model.named_modules() if isinstance(part, ShiftWiseConv2d)]


def _measure(model: nn.Module, sizes: dict[str, tuple[int, int, int]]) -> dict[str, Any]:
    layers = [(layer, sizes[name]) for name, layer in _layers(model)]
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(batch, layer.num_active, height, width, generator=generator)
        for layer, (batch, height, width) in layers
    ]
    trained = [layer.merged_weight().detach() for layer, _ in layers]
    full = [_full_weight(layer, generator) for layer, _ in layers]
    work = [layer_work(layer, 1, *size[1:]) for layer, size in layers]
    found: dict[str, Any] = {
        'backend': sorted(
            {
                backend_for(layer.backend, 'shift_wise_conv2d', x, layer.pattern.tables())
                for (layer, _), x in zip(layers, inputs, strict=True)
            }
        ),
        'batch': layers[0][1][0],
        'maps': [size[1:] for _, size in layers],
        'work_dense': sum(dense for dense, _, _ in work),
        'work_used': sum(used for _, used, _ in work),
        'filters_left': _filters_left(trained),
        'load_average': os.getloadavg()[0] if hasattr(os, 'getloadavg') else None,
    }
    found['work_left'] = found['work_used'] / found['work_dense']
    for mode in _MODES:
        calls = [
            _call([layer for layer, _ in layers], inputs, weights, mode == _MODES[1])
            for weights in (full, trained)
        ]
        estimate = max(seconds(call, _CPU) for call in [*calls, *calls])
        times = measure(calls, [estimate, estimate], _CPU, _ROUNDS, _BUDGET)
        found[mode] = _compare(*times)
    return found


def _full_weight(layer: ShiftWiseConv2d, generator: torch.Generator) -> Tensor:
    """Merged weight of a layer of which nothing is pruned."""
    weight = layer.merged_weight().detach()
    noise = torch.randn(weight.shape, generator=generator)
    return torch.where(weight == 0, weight.std() * noise, weight)


def _filters_left(weights: Sequence[Tensor]) -> float:
    kept = sum(int(weight.flatten(1).any(1).sum()) for weight in weights)
    return kept / sum(len(weight) for weight in weights)


def _call(
    layers: Sequence[ShiftWiseConv2d],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    backward: bool,
) -> Callable[[], object]:
    """All operators once, with the gradients of map and weight if asked for."""
    if not backward:

        def forward() -> None:
            with torch.no_grad():
                for layer, x, weight in zip(layers, inputs, weights, strict=True):
                    shift_wise_conv2d(x, weight, layer.pattern, layer.backend)

        return forward
    leaves = [
        (x.clone().requires_grad_(), weight.clone().requires_grad_())
        for x, weight in zip(inputs, weights, strict=True)
    ]

    def both() -> None:
        for layer, (x, weight) in zip(layers, leaves, strict=True):
            outputs = shift_wise_conv2d(x, weight, layer.pattern, layer.backend)
            torch.autograd.grad(outputs, (x, weight), [x.detach()] * 3)

    return both


def _compare(full: Sequence[float], trained: Sequence[float]) -> dict[str, Any]:
    """Medians, and the median of the ratios of neighbouring samples; one may have a few more."""
    ratios = sorted(one / other for one, other in zip(trained, full, strict=False))
    return {
        'seconds': sorted(trained)[len(trained) // 2],
        'seconds_full': sorted(full)[len(full) // 2],
        'ratio': ratios[len(ratios) // 2],
        'samples': len(ratios),
    }
