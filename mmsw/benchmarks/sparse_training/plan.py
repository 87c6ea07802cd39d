"""What the benchmark is to do: methods, settings, runs, and the config of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

import mmsw
from mmsw.component_name import component_name

from ..configs import config_of_run, measuring
from ..digests import config_digest, data_digest, training_conditions
from ..runs import Run
from .hook import SparsityBenchmarkHook

DENSE = 'dense'
KEPT, EXCHANGED = 'static', 'filter'  # the same filters at the start
# What DynamicSparsityHook is told beside the sparsity.
METHODS: dict[str, dict[str, Any]] = {
    DENSE: {},
    KEPT: dict(granularity='filter', end_iter=0),
    EXCHANGED: dict(granularity='filter'),
    'weight': dict(granularity='weight'),
}
UPDATES = 16  # in a run, unless an interval is asked for
_ADAPTING = 0.75  # share of a run after which masks stay
_ALIGN_INTERVAL = 5  # updates


@dataclass(frozen=True)
class SparsitySettings:
    """What was asked for.

    Attributes:
        out: Folder of everything that is written.
        methods: Some of ``METHODS``.
        sparsities: Shares of the small kernels to prune, each in (0, 1).
        seeds: Number of seeds: 0, 1, ...
        max_iters: Iterations of every run.
        interval: Iterations between two updates of the masks; None: so that there are
            :data:`UPDATES`.
        jobs: Runs side by side, of one thread each.
        rules: Settings of DynamicSparsityHook for the methods that exchange anything.
        page: Page of the documentation that gets the tables once everything is measured.
    """

    out: Path
    methods: tuple[str, ...]
    sparsities: tuple[float, ...]
    seeds: int
    max_iters: int
    interval: int | None = None
    jobs: int = 1
    rules: Mapping[str, str] = field(default_factory=dict)
    page: Path | None = None

    @property
    def end_iter(self) -> int:
        """Iteration after which masks stay, so that what grew last still learns."""
        return max(1, round(_ADAPTING * self.max_iters))

    @property
    def update_interval(self) -> int:
        """Iterations between two updates of the masks."""
        return self.interval or max(1, self.end_iter // UPDATES)


@dataclass(frozen=True)
class SparsityRun(Run):
    """One training.

    Attributes:
        method: One of ``METHODS``.
        sparsity: Share of the small kernels that is pruned; 0 for ``'dense'``.
    """

    method: str
    sparsity: float


def plan_runs(cfg: Config, data: Path, settings: SparsitySettings) -> list[SparsityRun]:
    """List the trainings: seed by seed, so that an early end leaves whole rounds.

    Args:
        cfg: What is trained.
        data: Folder of its data.
        settings: What was asked for.
    """
    common = {
        **training_conditions(_code()),
        'config': config_digest(cfg, data, ['max_iters', 'data_root']),
        'data': data_digest(cfg),
        'max_iters': settings.max_iters,
        'jobs': settings.jobs,
    }
    runs = []
    for seed in range(settings.seeds):
        for method in settings.methods:
            for sparsity in (0.0,) if method == DENSE else settings.sparsities:
                name = method if method == DENSE else f'{method}-{sparsity:g}'
                hook = _hook(method, sparsity, seed, settings)
                own = {'method': method, 'sparsity': sparsity, 'seed': seed, 'hook': hook}
                folder = settings.out / 'runs' / f'{name}-seed{seed}'
                runs.append(SparsityRun(folder, {**common, **own}, seed, method, sparsity))
    return runs


def _hook(
    method: str, sparsity: float, seed: int, settings: SparsitySettings
) -> dict[str, Any] | None:
    if method == DENSE:
        return None
    rates = dict(
        interval=settings.update_interval,
        align_interval=_ALIGN_INTERVAL,
        end_iter=settings.end_iter,
    )
    start = dict(type='DynamicSparsityHook', start='snip', sparsity=sparsity, seed=seed)
    rules = {} if method == KEPT else settings.rules
    return {**start, **rates, **METHODS[method], **rules}


def run_config(cfg: Config, run: SparsityRun, settings: SparsitySettings) -> Config:
    """The config of a training: its schedule, its hooks, and one process for everything."""
    cfg = config_of_run(cfg, run, settings.max_iters, 1)
    for name in ('train_dataloader', 'val_dataloader'):
        loader = cfg[name]
        loader.num_workers, loader.persistent_workers = 0, False
        loader.pop('prefetch_factor', None)
    others = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if component_name(hook.get('type')) not in ('SparsityReportHook', 'DynamicSparsityHook')
    ]
    measure = measuring(
        SparsityBenchmarkHook,
        run,
        sparsity=run.sparsity,
        granularity='weight' if run.method == 'weight' else 'filter',
    )
    cfg.custom_hooks = [
        *others,
        dict(type='SparsityReportHook'),
        *([run.settings['hook']] if run.settings['hook'] else []),
        measure,
    ]
    return cfg


def _code() -> list[Path]:
    """What decides how a run learns and what it measures, beside what counts for every training."""
    root = Path(mmsw.__file__).parent
    folders = [root / name for name in ('datasets', 'demo')]
    return [Path(__file__).with_name('hook.py'), *folders, *sorted(root.glob('*.py'))]
