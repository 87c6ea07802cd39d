"""What a benchmark is to do: settings, runs, and the config of each."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.apis.config import enable_amp, enable_auto_scale_lr
from mmsw.component_name import component_name

from ..configs import config_of_run, measuring
from ..digests import config_digest, data_digest, training_conditions
from ..runs import CONFIG, FINAL, Run
from .configured import configured_start, start_digest
from .hook import TransferHook
from .networks import Network

LONGER = 'scratch-long'  # random values, as many iterations as pretraining and fine-tuning together
COMPARED = ('scratch', LONGER, 'dense', 'sparse', 'sparse-unmasked')
RANDOM = ('scratch', LONGER)
AS_CONFIGURED = 'config'  # what the config of each network names
TEACHER = 'dense'
TAUGHT = 'sparse-distilled'  # as 'sparse', and learns from the TEACHER of its seed
STARTS = (*COMPARED, TAUGHT, AS_CONFIGURED)
KEPT = ('sparse', TAUGHT)  # whose zeros stay
# Which checkpoint a start is from.
CHECKPOINTS = {'dense': 'dense', 'sparse': 'sparse', 'sparse-unmasked': 'sparse', TAUGHT: 'sparse'}


@dataclass(frozen=True)
class TransferSettings:
    """What was asked for.

    Attributes:
        out: Folder of everything that is written.
        starts: Some of ``STARTS``; none: those of ``COMPARED`` for the demonstration or where
            checkpoints are named, else ``AS_CONFIGURED``.
        seeds: Number of seeds: 0, 1, ...
        budgets: Task -> iterations of a run; empty: as the configs say.
        evaluations: Evaluations in a run.
        pretrained: ``(kind, name)`` -> file, where kind is ``'dense'`` or ``'sparse'`` and name is
            that of a network, or ``''`` for every shift-wise one.
        sparsity: Of the demonstration's own pretraining: share of the small filters to prune.
        pretrain_epochs: Its length.
        pretrain_iters: Iterations that the pretraining of named checkpoints had, which
            ``'scratch-long'`` has in addition; None: those of the demonstration's own.
        jobs: Runs side by side; if there are several, each has one thread.
        nproc: Processes of a run.
        amp: Train in mixed precision.
        auto_scale_lr: Scale the learning rate to the total batch size.
        page: Page of the documentation that gets the tables once all runs are finished.
        comparison: Name of a ready comparison, if this is one.
    """

    out: Path
    starts: tuple[str, ...]
    seeds: int
    budgets: Mapping[str, int]
    evaluations: int = 6
    pretrained: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    sparsity: float = 0.4
    pretrain_epochs: int = 8
    pretrain_iters: int | None = None
    jobs: int = 1
    nproc: int = 1
    amp: bool = False
    auto_scale_lr: bool = False
    page: Path | None = None
    comparison: str = ''


@dataclass(frozen=True)
class TransferRun(Run):
    """One training.

    Attributes:
        network: What is trained.
        start: One of ``STARTS``.
        checkpoint: File that the backbone starts from; it may still have to be made.
        iterations: Its length; None if it depends on data that are still to be made.
        teacher: The run that it learns from, which must be finished before; None if there is none.
    """

    network: Network
    start: str
    checkpoint: Path | None
    iterations: int | None
    teacher: TransferRun | None = None

    @property
    def kind(self) -> str:
        """Runs of one network and length take about the same time."""
        name = self.network.name
        return f'{name} {self.start}' if self.start in (LONGER, TAUGHT) else name


def plan_runs(
    networks: list[Network],
    settings: TransferSettings,
    starts: Mapping[tuple[str, str], tuple[Path, str]],
    pretraining: Mapping[str, int | None] | None = None,
) -> list[TransferRun]:
    """List the trainings of a benchmark: seed by seed, so that an early end leaves whole rounds.

    Args:
        networks: The networks.
        settings: What was asked for.
        starts: ``(network name, kind)`` -> checkpoint file and what identifies its contents, for
            every start that makes sense, see ``find_starts`` in ``starts.py``.
        pretraining: Network name -> iterations of its pretraining, for ``'scratch-long'``, see
            ``pretraining_lengths`` in ``starts.py``.

    Returns:
        The runs; starts that make no sense for a network are left out.
    """
    common = {
        **training_conditions([Path(__file__).with_name('hook.py')]),
        'nproc': settings.nproc,
        'amp': settings.amp,
        'auto_scale_lr': settings.auto_scale_lr,
        'evaluations': settings.evaluations,
    }
    of_network = {
        network.name: {
            'data': data_digest(network.cfg, network.data.parent if network.is_demo else None),
            'config': config_digest(_not_started(network), network.data, ['mini_backbone']),
        }
        for network in networks
    }
    runs: list[TransferRun] = []
    for seed in range(settings.seeds):
        for network in networks:
            done: dict[str, TransferRun] = {}
            for start in sorted(settings.starts, key=TAUGHT.__eq__):  # after its teacher
                known = (network.name, CHECKPOINTS.get(start)) in starts
                if start not in (*RANDOM, AS_CONFIGURED) and not known:
                    continue
                if start == TAUGHT and TEACHER not in done:
                    continue
                budget = settings.budgets[network.task]
                if start == LONGER:
                    more = (pretraining or {}).get(network.name)
                    budget = None if more is None else budget + more
                path, identity = starts[network.name, CHECKPOINTS[start]] if known else (None, None)
                if start == AS_CONFIGURED:
                    identity = start_digest(network.cfg)
                own = {'start': start, 'checkpoint': identity, 'seed': seed, 'budget': budget}
                name = f'{network.task}-{network.name}-{start}-seed{seed}'
                folder = settings.out / 'runs' / name
                teacher = done[TEACHER] if start == TAUGHT else None
                if teacher is not None:
                    own['teacher'] = teacher.digest
                all_settings = {**common, **own, **of_network[network.name]}
                run = TransferRun(folder, all_settings, seed, network, start, path, budget, teacher)
                done[start] = run
                runs.append(run)
    return runs


def run_config(run: TransferRun, settings: TransferSettings) -> Config:
    """The config of a training, with the hook that fills the network and measures."""
    network = run.network
    cfg = config_of_run(_not_started(network), run, run.iterations, settings.evaluations)
    enable_options(cfg, settings)
    hooks = []
    for hook in cfg.get('custom_hooks') or []:
        kind = component_name(hook.get('type'))
        if kind == 'SparsityReportHook':
            hook = dict(hook, require_sparse=run.start in KEPT)
        if kind != 'KeepSparsityHook':
            hooks.append(hook)
    if run.start in KEPT and not network.is_shiftwise:
        hooks.append(dict(type='KeepSparsityHook'))
    if run.teacher is not None:
        hooks.append(dict(type='DistillationHook', **distillation_from(run.teacher)))
    transfer = measuring(
        TransferHook,
        run,
        start=run.start,
        init_cfg=configured_start(network.cfg) if run.start == AS_CONFIGURED else None,
        checkpoint=None if run.checkpoint is None else os.path.abspath(run.checkpoint),
        narrow=network.is_demo,
        seed=run.seed,
        evaluator_scores=network.scores,
    )
    cfg.custom_hooks = [*hooks, transfer]
    return cfg


def distillation_from(teacher: TransferRun) -> dict[str, Any]:
    """What a network of the same architecture learns from a finished run.

    Args:
        teacher: The run.

    Returns:
        Settings of :class:`mmsw.engine.DistillationHook`: logits and features of the backbone for a
        segmentor, features of the neck for a detector.
    """
    files = {'config': teacher.folder / CONFIG, 'checkpoint': teacher.folder / FINAL}
    segments = teacher.network.task == 'seg'
    what = dict(logits={}, features=['backbone']) if segments else dict(features=['neck'])
    return dict(teacher={name: os.path.abspath(path) for name, path in files.items()}, **what)


def enable_options(cfg: Config, settings: TransferSettings) -> None:
    """Put into a config what was asked for of every training.

    Raises:
        UsageError: If the config, or this machine, does not allow it.
    """
    if settings.amp:
        enable_amp(cfg)
    if settings.auto_scale_lr:
        enable_auto_scale_lr(cfg)


def _not_started(network: Network) -> Config:
    """The config of a network whose backbone does not start from a checkpoint by itself."""
    cfg = copy.deepcopy(network.cfg)
    cfg.model.backbone.init_cfg = None
    for part in (cfg.model, cfg.model.backbone):
        part.pop('pretrained', None)
    return cfg
