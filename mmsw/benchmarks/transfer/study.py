"""The benchmark of downstream transfer: which networks, which starts, how they differ."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmsw.apis.data import check_data
from mmsw.errors import UsageError

from ..configs import make_missing_data
from ..execution import Way
from ..page import blocks_to_fill
from ..runs import Failure, result_of
from ..study import Study, check_least, check_names, check_share
from .networks import Network, read_networks
from .page import page_blocks, update_page
from .plan import (
    AS_CONFIGURED,
    COMPARED,
    LONGER,
    STARTS,
    TAUGHT,
    TEACHER,
    TransferRun,
    TransferSettings,
    enable_options,
    plan_runs,
    run_config,
)
from .plot import draw
from .report import make_rows, write_report
from .starts import check_pretraining_lengths, find_starts, make_starts, pretraining_lengths

DEMO_BUDGETS = {'seg': 200, 'det': 120}


class TransferStudy(Study[TransferRun]):
    """Fine-tune several starting points under one budget, and report how they differ.

    Args:
        configs: (task or None, path) of each network.
        data: Task -> folder, see :func:`mmsw.benchmarks.transfer.networks.read_networks`.
        cfg_options: Changes to every config.
        settings: Everything else.
        progress: Called with a line of text now and then; None: prints it.

    Raises:
        UsageError: If something asked for is impossible.
    """

    picture = 'transfer.png'

    def __init__(
        self,
        configs: Sequence[tuple[str | None, Path]],
        data: Mapping[str, Path],
        cfg_options: Mapping[str, Any],
        settings: TransferSettings,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        threads = 1 if settings.jobs > 1 else None
        super().__init__(settings.out, Way(settings.jobs, settings.nproc, threads), progress)
        _check(settings)
        self.networks = read_networks(configs, data, cfg_options)
        self.settings = settings = _with_defaults(settings, self.networks)
        if settings.pretrain_iters is not None and LONGER not in settings.starts:
            raise UsageError(
                f'--pretrain-iters {settings.pretrain_iters} says how much longer {LONGER} trains, '
                f'which --starts {",".join(settings.starts)} leaves out'
            )
        for network in self.networks:
            if network.task not in settings.budgets:
                raise UsageError(
                    f'no budget for task {network.task}: --budget {network.task}=ITERS'
                )
            enable_options(copy.deepcopy(network.cfg), settings)

    def check(self) -> None:
        if self.settings.page is not None:
            tasks = [network.task for network in self.networks]
            blocks_to_fill(self.settings.page, page_blocks(self.settings, tasks))
        find_starts(self.networks, self.settings)
        check_pretraining_lengths(self.networks, self.settings)
        for network in self.networks:
            if not network.is_demo or network.data.parent.exists():
                _check_data(network)

    def make_data(self) -> None:
        for network in self.networks:
            if network.is_demo:
                make_missing_data(network.data.parent, self.progress)

    def plan(self) -> list[TransferRun]:
        self.starts = find_starts(self.networks, self.settings)
        lengths = pretraining_lengths(self.networks, self.settings)
        return plan_runs(self.networks, self.settings, self.starts, lengths)

    def prepare(self) -> None:
        make_starts(self.networks, self.settings, self.starts, self.progress)

    def config_of(self, run: TransferRun) -> Config:
        return run_config(run, self.settings)

    def inputs(self) -> Iterator[str]:
        for network in self.networks:
            data = network.data.parent if network.is_demo else network.data
            yield (
                f'{network.task}: {network.name}, {self.settings.budgets[network.task]} '
                f'iterations, data {data}{"" if data.exists() else " (absent)"}'
            )
        for path in dict.fromkeys(path for path, _ in self.starts.values()):
            yield f'start: {path}{"" if path.is_file() else " (to be pretrained)"}'

    def length(self, runs: Sequence[TransferRun]) -> str:
        known = f'{sum(run.iterations or 0 for run in runs)} iterations'
        unknown = sum(run.iterations is None for run in runs)
        return f'{known} and {unknown} runs of a length that the data decide' if unknown else known

    def report(self, runs: Sequence[TransferRun], failures: Sequence[Failure]) -> str:
        text = write_report(self.networks, runs, self.settings, failures)
        if self.settings.page is not None and all(result_of(run) for run in runs):
            rows = make_rows(self.networks, runs, self.settings.starts)
            update_page(rows, self.settings, self.settings.page)
        return text

    def draw(self, runs: Sequence[TransferRun], path: Path) -> None:
        draw(make_rows(self.networks, runs, self.settings.starts), path)


def _with_defaults(settings: TransferSettings, networks: Sequence[Network]) -> TransferSettings:
    """Starts and budgets that nobody asked for, by what the networks are for."""
    demo = any(network.is_demo for network in networks)
    starts = settings.starts
    if not starts:
        starts = COMPARED if demo or settings.pretrained else (AS_CONFIGURED,)
        if settings.pretrained and settings.pretrain_iters is None:
            starts = tuple(start for start in starts if start != LONGER)
    budgets = settings.budgets or {
        task: _default_budget([network for network in networks if network.task == task])
        for task in dict.fromkeys(network.task for network in networks)
    }
    return dataclasses.replace(settings, starts=starts, budgets=budgets)


def _default_budget(networks: Sequence[Network]) -> int:
    """Iterations of all networks of a task: as many as the longest of their schedules has."""
    if any(network.is_demo for network in networks):
        return DEMO_BUDGETS[networks[0].task]
    lengths = [network.cfg.get('train_cfg', {}).get('max_iters') for network in networks]
    if None in lengths:
        network = networks[lengths.index(None)]
        raise UsageError(
            f'no budget for task {network.task}: --budget {network.task}=ITERS, since '
            f'{network.name} does not say for how many iterations it trains'
        )
    return max(lengths)


def _check(settings: TransferSettings) -> None:
    check_names('starts', settings.starts or (AS_CONFIGURED,), STARTS)
    if TAUGHT in settings.starts and TEACHER not in settings.starts:
        raise UsageError(
            f'the start {TAUGHT} learns from the runs of the start {TEACHER}: add {TEACHER} to '
            '--starts'
        )
    check_least(
        {
            'seeds': settings.seeds,
            'jobs': settings.jobs,
            'nproc': settings.nproc,
            'evaluations': settings.evaluations,
            **{f'budget of {task}': value for task, value in settings.budgets.items()},
            'pretrain epochs': settings.pretrain_epochs,
            'pretrain iters': 1 if settings.pretrain_iters is None else settings.pretrain_iters,
        }
    )
    if torch.cuda.is_available() and settings.nproc > torch.cuda.device_count():
        raise UsageError(
            f'nproc is {settings.nproc}, but {torch.cuda.device_count()} GPUs are there'
        )
    check_share(settings.sparsity)


def _check_data(network: Network) -> None:
    try:
        check_data(network.cfg, ('train_dataloader', 'val_dataloader'))
    except UsageError as error:
        option = f'--data {network.task}=PATH'
        raise UsageError(str(error).replace('--data-root PATH', option)) from error
