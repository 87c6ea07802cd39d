"""What the tests of the benchmark of sparse training have in common."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from study_helpers import ROOT, SMALL_BACKBONE, call_tool

from mmsw.benchmarks.sparse_training.plan import METHODS, SparsityRun, SparsitySettings
from mmsw.json_file import write_json

TOOL = ROOT / 'tools/benchmark_sparsity.py'
RECIPE = ROOT / 'configs/demo/pretrain_sw_mini_scenes.py'
MINI = f"""
_base_ = [{str(RECIPE)!r}]
model = dict(
    backbone=dict({SMALL_BACKBONE}, drop_path_rate=0.3),
    in_channels=8,
)
train_dataloader = dict(batch_size=4)
val_dataloader = dict(batch_size=4)
"""


call = partial(call_tool, TOOL)


def settings_for(out: Path, **more: Any) -> SparsitySettings:
    given = {'methods': tuple(METHODS), 'sparsities': (0.5,), 'seeds': 1, 'max_iters': 8}
    return SparsitySettings(out=out, **{**given, **more})


def result_like(
    run: SparsityRun, accuracy: float, seconds: float = 1.0, **more: Any
) -> dict[str, Any]:
    """A result as a run with 100 filters of 9 weights writes it."""
    kept = round(100 * (1 - run.sparsity))
    return {
        'digest': run.digest,
        'accuracy': accuracy,
        'held_out': 40,
        'loss': 1.0,
        'iterations': 8,
        'filters': 100,
        'filters_kept': kept,
        'weights': 900,
        'weights_kept': 9 * kept,
        'kept': kept,
        'kept_at_start': kept,
        'kept_wanted': kept,
        'exchanged': 0.25,
        'pruned_but_not_zero': 0,
        'seconds_per_iteration': seconds,
        'iterations_timed': 7,
        'seconds_start': 0.1,
        'updates_share': 0.02,
        'wall_seconds': 10.0,
        'threads': 1,
        'weights_at_start': 'a',
        'rest_at_start': 'b',
        'random_at_start': 'c',
        'random_at_end': 'd',
        'masks_at_start': 'e',
        'first_batches': ['f', 'g', 'h'],
        'last_batch': 'i',
        **more,
    }


def operator_like(run: SparsityRun, forward: float, work: float) -> dict[str, Any]:
    """A measurement of the operators, but for what it belongs to."""
    times = {'seconds': 0.01 * forward, 'seconds_full': 0.01, 'ratio': forward, 'samples': 9}
    return {
        'backend': ['torch'],
        'batch': 4,
        'maps': [[16, 16], [8, 8]],
        'work_dense': 1000,
        'work_used': round(1000 * work),
        'work_left': work,
        'filters_left': 1 - run.sparsity,
        'load_average': 0.0,
        'forward': times,
        'forward_backward': times,
    }


def finish(run: SparsityRun, result: dict[str, Any]) -> None:
    """Make a run look finished."""
    write_json(run.folder / 'settings.json', 'training_settings', run.settings)
    write_json(run.folder / 'result.json', 'training_result', result)
