"""The benchmark of downstream transfer: plan, pretrain, train, report."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmsw.apis.config import enable_auto_scale_lr
from mmsw.apis.data import check_data
from mmsw.demo import make_demo_data
from mmsw.errors import UsageError

from ..locks import exclusive
from ..runs import Failure, check_free, result_of
from .networks import Network, read_networks
from .plan import STARTS, Run, TransferSettings, check_not_mixed, plan_runs
from .plot import draw
from .report import make_rows, plot_path, write_report
from .runs import execute
from .starts import find_starts, make_starts


def benchmark_transfer(
    configs: Sequence[tuple[str | None, Path]],
    data: Mapping[str, Path],
    cfg_options: Mapping[str, Any],
    settings: TransferSettings,
    dry_run: bool = False,
    progress: Callable[[str], None] = print,
) -> list[Failure]:
    """Fine-tune several starting points under one budget, and report how they differ.

    Args:
        configs: (task or None, path) of each network.
        data: Task -> folder, see :func:`mmsw.benchmarks.transfer.networks.read_networks`.
        cfg_options: Changes to every config.
        settings: Everything else.
        dry_run: Say what would be done, and do nothing.
        progress: Called with a line of text now and then.

    Returns:
        The runs that failed.

    Raises:
        UsageError: If something asked for is impossible; nothing was trained then.
        mmsw.checkpoint.CheckpointError: If a checkpoint cannot be used.
    """
    _check(settings)
    networks = read_networks(configs, data, cfg_options)
    for network in networks:
        if network.task not in settings.budgets:
            raise UsageError(f'no budget for task {network.task}: --budget {network.task}=ITERS')
    if settings.auto_scale_lr:
        for network in networks:
            enable_auto_scale_lr(copy.deepcopy(network.cfg))
    if dry_run:
        return _tell_plan(networks, settings, progress)
    find_starts(networks, settings)  # raises before any work
    for network in networks:
        if not network.is_demo or network.data.parent.exists():
            _check_data(network)
    with exclusive(settings.out):
        _make_data(networks, progress)
        starts = find_starts(networks, settings)
        runs = plan_runs(networks, settings, starts)
        check_not_mixed(runs)
        check_free(runs)
        make_starts(networks, settings, starts, progress)
        failures: list[Failure] = []

        def report() -> None:
            write_report(networks, runs, settings, failures)

        try:
            failures += execute(runs, settings, progress, report)
        finally:
            text = write_report(networks, runs, settings, failures)
            draw(make_rows(networks, runs, settings.starts), plot_path(settings))
        progress(f'\n{text}\nwritten to {settings.out}: report.md, results.json, transfer.png')
        return failures


def _check(settings: TransferSettings) -> None:
    unknown = [start for start in settings.starts if start not in STARTS]
    if unknown or not settings.starts:
        raise UsageError(f'starts must be some of {",".join(STARTS)}, got {unknown or "none"}')
    if len(set(settings.starts)) < len(settings.starts):
        raise UsageError(f'--starts {",".join(settings.starts)} names one twice')
    positive = {
        'seeds': settings.seeds,
        'nproc': settings.nproc,
        'evaluations': settings.evaluations,
        **{f'budget of {task}': value for task, value in settings.budgets.items()},
    }
    for name, value in positive.items():
        if value < 1:
            raise UsageError(f'{name} must be at least 1, got {value}')
    if settings.amp and not torch.cuda.is_available():
        raise UsageError('mixed precision (--amp) needs a GPU, and none is visible; leave it out')
    if torch.cuda.is_available() and settings.nproc > torch.cuda.device_count():
        raise UsageError(
            f'nproc is {settings.nproc}, but {torch.cuda.device_count()} GPUs are there'
        )
    if not 0 < settings.sparsity < 1:
        raise UsageError(f'sparsity must be between 0 and 1, got {settings.sparsity}')
    if settings.pretrain_epochs < 1:
        raise UsageError(f'pretrain epochs must be at least 1, got {settings.pretrain_epochs}')


def _check_data(network: Network) -> None:
    try:
        check_data(network.cfg, ('train_dataloader', 'val_dataloader'))
    except UsageError as error:
        option = f'--data {network.task}=PATH'
        raise UsageError(str(error).replace('--data-root PATH', option)) from error


def _make_data(networks: Sequence[Network], progress: Callable[[str], None]) -> None:
    for folder in dict.fromkeys(network.data.parent for network in networks if network.is_demo):
        if not folder.exists():
            progress(f'making the demo data: {folder}')
            try:
                make_demo_data(folder)
            except ImportError as error:
                raise UsageError(f'the demo data cannot be made: {error}') from error


def _tell_plan(
    networks: list[Network], settings: TransferSettings, progress: Callable[[str], None]
) -> list[Failure]:
    starts = find_starts(networks, settings)
    runs = plan_runs(networks, settings, starts)
    check_not_mixed(runs)
    for network in networks:
        data = network.data.parent if network.is_demo else network.data
        progress(
            f'{network.task}: {network.name}, {settings.budgets[network.task]} iterations, '
            f'data {data}{"" if data.exists() else " (absent)"}'
        )
    for path in dict.fromkeys(path for path, _ in starts.values()):
        progress(f'start: {path}{"" if path.is_file() else " (to be pretrained)"}')
    for run in runs:
        progress(f'run: {run.name}{" (finished)" if _finished(run) else ""}')
    open_runs = sum(not _finished(run) for run in runs)
    progress(
        f'{open_runs} of {len(runs)} runs to do, '
        f'{sum(settings.budgets[r.network.task] for r in runs if not _finished(r))} iterations; '
        'nothing was done'
    )
    return []


def _finished(run: Run) -> bool:
    return result_of(run) is not None
