"""The benchmark of sparse training: plan, train, time the operators, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.apis.backbone import build_backbone
from mmsw.apis.config import load_config, register_toolbox
from mmsw.apis.data import check_data, iter_datasets
from mmsw.demo import make_demo_data
from mmsw.errors import UsageError
from mmsw.sparsity import masked_layers

from ..locks import exclusive
from ..operator.measure import usable_cpus
from ..runs import Failure, check_free, result_of
from .operator_time import measure_operators
from .plan import METHODS, Run, SparsitySettings, check_not_mixed, plan_runs
from .plot import draw
from .report import write_report
from .runs import execute
from .summary import make_cells

_NEEDED = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper')
_DEMO_FOLDER = 'coco'  # of the demo data, where a config of the cutouts finds them
_HELD_OUT = 600  # scenes of the benchmark's own data to evaluate on


def benchmark_sparsity(
    config: str | os.PathLike[str],
    data: Path | None,
    cfg_options: Mapping[str, Any],
    settings: SparsitySettings,
    dry_run: bool = False,
    progress: Callable[[str], None] = print,
) -> list[Failure]:
    """Train dense, static and dynamic sparse networks under one budget, and compare them.

    Args:
        config: Config of a classifier with shift-wise layers, whose evaluator gives ``accuracy``.
        data: For a config of the demonstration the folder that ``tools/make_demo_data.py`` makes;
            None for scenes in the output folder, of which more are held out than the demonstration
            has, since few tell little about small differences. They are made if they are absent.
            For other configs the data root; None: as the config says.
        cfg_options: Changes to the config, dotted key -> value.
        settings: Everything else.
        dry_run: Say what would be done, and do nothing.
        progress: Called with a line of text now and then.

    Returns:
        The runs that failed.

    Raises:
        UsageError: If something asked for is impossible; nothing was trained then.
    """
    _check(settings)
    cfg, is_demo, root = _read(config, data, cfg_options, settings.out)
    if dry_run:
        return _tell_plan(plan_runs(cfg, root, settings), root, settings, progress)
    if not is_demo or root.parent.exists():
        check_data(cfg, ('train_dataloader', 'val_dataloader'))
    with exclusive(settings.out):
        if is_demo and not root.parent.exists():
            _make_data(root.parent, {} if data else {'num_val': _HELD_OUT}, progress)
        runs = plan_runs(cfg, root, settings)
        check_not_mixed(runs)
        check_free(runs)
        failures: list[Failure] = []
        try:
            failures += execute(cfg, runs, settings, progress)
            measure_operators(cfg, runs, progress)
        finally:
            text = write_report(runs, settings, failures)
            draw(make_cells(runs), settings.out / 'sparse_training.png')
        progress(
            f'\n{text}\nwritten to {settings.out}: report.md, results.json, sparse_training.png'
        )
        return failures


def _check(settings: SparsitySettings) -> None:
    unknown = [method for method in settings.methods if method not in METHODS]
    if unknown or not settings.methods:
        raise UsageError(f'methods must be some of {",".join(METHODS)}, got {unknown or "none"}')
    if len(set(settings.methods)) < len(settings.methods):
        raise UsageError(f'--methods {",".join(settings.methods)} names one twice')
    for sparsity in settings.sparsities:
        if not 0 < sparsity < 1:
            raise UsageError(
                f'sparsity must be between 0 and 1, got {sparsity:g} (30 per cent are 0.3; nothing '
                'pruned is the method dense)'
            )
    if not settings.sparsities:
        raise UsageError('sparsity must name at least one value')
    if len({f'{sparsity:g}' for sparsity in settings.sparsities}) < len(settings.sparsities):
        raise UsageError(
            f'--sparsity {",".join(f"{value:g}" for value in settings.sparsities)} names one twice'
        )
    for name, value, least in (
        ('seeds', settings.seeds, 1),
        ('max iterations', settings.max_iters, 2),
        ('interval', settings.update_interval, 1),
        ('jobs', settings.jobs, 1),
    ):
        if value < least:
            raise UsageError(f'{name} must be at least {least}, got {value}')
    if settings.jobs > usable_cpus():
        raise UsageError(
            f'jobs must be at most the {usable_cpus()} processors here, got {settings.jobs}: runs '
            'that wait for each other have no time per iteration worth telling'
        )


def _read(
    config: str | os.PathLike[str], data: Path | None, cfg_options: Mapping[str, Any], out: Path
) -> tuple[Config, bool, Path]:
    """The config with its data in place, whether it is of the demonstration, and its data root."""
    cfg = load_config(config, dict(cfg_options))
    register_toolbox(cfg)
    for key in _NEEDED:
        if not cfg.get(key):
            raise UsageError(f'{config} has no {key}, which a benchmark of training needs')
    dataset = next(iter_datasets(cfg.train_dataloader.dataset))
    is_demo = dataset.get('type') == 'DemoCutouts'
    root = Path(cfg.get('data_root') or dataset.get('data_root') or '')
    if data is None and is_demo:
        data = out / 'scenes'
    if data is not None:
        root = data / _DEMO_FOLDER if is_demo else data
        cfg = load_config(cfg, data_root=root)
    if not any(True for _ in masked_layers(build_backbone(cfg))):
        raise UsageError(f'the backbone of {config} has no shift-wise layer that could be sparse')
    return cfg, is_demo, root


def _make_data(folder: Path, settings: Mapping[str, int], progress: Callable[[str], None]) -> None:
    progress(f'making the demo data: {folder}')
    try:
        make_demo_data(folder, **settings)
    except ImportError as error:
        raise UsageError(f'the demo data cannot be made: {error}') from error


def _tell_plan(
    runs: list[Run], root: Path, settings: SparsitySettings, progress: Callable[[str], None]
) -> list[Failure]:
    check_not_mixed(runs)
    progress(f'data: {root}{"" if root.exists() else " (absent)"}')
    for run in runs:
        progress(f'run: {run.name}{" (finished)" if result_of(run) else ""}')
    open_runs = sum(result_of(run) is None for run in runs)
    progress(
        f'{open_runs} of {len(runs)} runs to do, {settings.max_iters} iterations each, '
        f'{settings.jobs} side by side; nothing was done'
    )
    return []
