"""What the benchmark is to do: methods, settings, runs, and the config of each."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

import mmsw
from mmsw.apis.schedule import fit_schedule
from mmsw.errors import UsageError

from ..files import digest, file_digest, read_json, source_digest
from ..provenance import network_digest, package_versions
from ..runs import BenchmarkRun

DENSE = 'dense'
# What DynamicSparsityHook is told beside the sparsity.
METHODS: dict[str, dict[str, Any]] = {
    DENSE: {},
    'static': dict(granularity='filter', end_iter=0),
    'filter': dict(granularity='filter'),
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
    """

    out: Path
    methods: tuple[str, ...]
    sparsities: tuple[float, ...]
    seeds: int
    max_iters: int
    interval: int | None = None
    jobs: int = 1

    @property
    def end_iter(self) -> int:
        """Iteration after which masks stay, so that what grew last still learns."""
        return max(1, round(_ADAPTING * self.max_iters))

    @property
    def update_interval(self) -> int:
        """Iterations between two updates of the masks."""
        return self.interval or max(1, self.end_iter // UPDATES)


@dataclass(frozen=True)
class Run(BenchmarkRun):
    """One training.

    Attributes:
        method: One of ``METHODS``.
        sparsity: Share of the small kernels that is pruned; 0 for ``'dense'``.
        seed: Of initial values, data order and augmentation.
    """

    method: str
    sparsity: float
    seed: int


def plan_runs(cfg: Config, data: Path, settings: SparsitySettings) -> list[Run]:
    """List the trainings: seed by seed, so that an early end leaves whole rounds.

    Args:
        cfg: What is trained.
        data: Folder of its data.
        settings: What was asked for.
    """
    common = {
        'source': training_digest(),
        'versions': package_versions(),
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
        'config': config_digest(cfg, data),
        'data': data_digest(data),
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
                runs.append(Run(folder, {**common, **own}, method, sparsity, seed))
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
    return {**start, **rates, **METHODS[method]}


def run_config(cfg: Config, run: Run, settings: SparsitySettings) -> Config:
    """The config of a training: its schedule, its hooks, and one process for everything."""
    cfg = copy.deepcopy(cfg)
    fit_schedule(cfg, settings.max_iters, 1)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=run.seed)
    cfg.work_dir = os.fspath(run.folder)
    cfg.load_from, cfg.resume = None, False
    for name in ('train_dataloader', 'val_dataloader'):
        loader = cfg[name]
        loader.num_workers, loader.persistent_workers = 0, False
        loader.pop('prefetch_factor', None)
    others = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if hook.get('type') not in ('SparsityReportHook', 'DynamicSparsityHook')
    ]
    measure = dict(
        type='SparsityBenchmarkHook',
        sparsity=run.sparsity,
        granularity='weight' if run.method == 'weight' else 'filter',
        digest=run.digest,
    )
    cfg.custom_hooks = [
        *others,
        dict(type='SparsityReportHook'),
        *([run.settings['hook']] if run.settings['hook'] else []),
        measure,
    ]
    return cfg


def check_not_mixed(runs: Sequence[Run]) -> None:
    """Refuse to go on in a folder with results of other settings.

    Raises:
        UsageError: If a run was begun with settings that differ.
    """
    for run in runs:
        old = read_json(run.folder / 'settings.json')
        if old is None or old == run.settings:
            continue
        keys = sorted(key for key in {*old, *run.settings} if old.get(key) != run.settings.get(key))
        differences = ', '.join(
            f'{key} {old.get(key)!r} there, {run.settings.get(key)!r} now' for key in keys
        )
        raise UsageError(
            f'{run.folder} was made with other settings ({differences}). Results of different '
            'settings are not mixed: name another --out, or delete that folder'
        )


def config_digest(cfg: Config, data: Path) -> str:
    """Digest of a config; where its data lie and how long it trains by itself do not count."""
    content = cfg.to_dict()
    for key in ('work_dir', 'max_iters', 'data_root'):
        content.pop(key, None)

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [placed(item) for item in value]
        text = str(value)
        return text.replace(os.fspath(data), '<data>') if isinstance(value, str) else value

    return digest(placed(content))


def data_digest(data: Path) -> str:
    """Digest of the data: what they were made from, and their annotation files."""
    files = sorted(data.rglob('*.json')) if data.is_dir() else []
    return digest([(str(path.relative_to(data)), file_digest(path)) for path in files])


@functools.cache
def training_digest() -> str:
    """Digest of the code that decides how a run learns and what it measures."""
    root = Path(mmsw.__file__).parent
    own = Path(__file__)
    files = [own.with_name(name) for name in ('hook.py', 'worker.py')]
    folders = [root / name for name in ('engine', 'datasets', 'demo')]
    files += [*sorted(root.glob('*.py')), root / 'apis/schedule.py']
    return digest([network_digest(), source_digest([*folders, *files])])
