"""What a benchmark is to do: settings, runs, and what tells results of other settings apart."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

import mmsw
from mmsw.apis.data import iter_datasets
from mmsw.apis.schedule import fit_schedule
from mmsw.errors import UsageError

from ..files import digest, file_digest, read_json, source_digest
from ..provenance import network_digest, package_versions
from ..runs import BenchmarkRun
from .networks import Network

STARTS = ('scratch', 'dense', 'sparse', 'sparse-unmasked')
# Which checkpoint a start is from.
CHECKPOINTS = {'dense': 'dense', 'sparse': 'sparse', 'sparse-unmasked': 'sparse'}
_WHOLE_FILE = 1 << 26  # bytes: of larger files only the size counts


@dataclass(frozen=True)
class TransferSettings:
    """What was asked for.

    Attributes:
        out: Folder of everything that is written.
        starts: Some of ``STARTS``.
        seeds: Number of seeds: 0, 1, ...
        budgets: Task -> iterations of a run.
        evaluations: Evaluations in a run.
        pretrained: ``(kind, name)`` -> file, where kind is ``'dense'`` or ``'sparse'`` and name is
            that of a network, or ``''`` for every shift-wise one.
        sparsity: Of the demonstration's own pretraining: share of the small filters to prune.
        pretrain_epochs: Its length.
        nproc: Processes of a run.
        amp: Train in mixed precision.
        auto_scale_lr: Scale the learning rate to the total batch size.
    """

    out: Path
    starts: tuple[str, ...]
    seeds: int
    budgets: Mapping[str, int]
    evaluations: int = 6
    pretrained: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    sparsity: float = 0.4
    pretrain_epochs: int = 8
    nproc: int = 1
    amp: bool = False
    auto_scale_lr: bool = False


@dataclass(frozen=True)
class Run(BenchmarkRun):
    """One training.

    Attributes:
        network: What is trained.
        start: One of ``STARTS``.
        seed: Of data order, augmentation and initial values.
        checkpoint: File that the backbone starts from; it may still have to be made.
    """

    network: Network
    start: str
    seed: int
    checkpoint: Path | None


def plan_runs(
    networks: list[Network],
    settings: TransferSettings,
    starts: Mapping[tuple[str, str], tuple[Path, str]],
) -> list[Run]:
    """List the trainings of a benchmark: seed by seed, so that an early end leaves whole rounds.

    Args:
        networks: The networks.
        settings: What was asked for.
        starts: ``(network name, kind)`` -> checkpoint file and what identifies its contents, for
            every start that makes sense, see ``find_starts`` in ``starts.py``.

    Returns:
        The runs; starts that make no sense for a network are left out.
    """
    common = {
        'source': training_digest(),
        'versions': package_versions(),
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
        'nproc': settings.nproc,
        'amp': settings.amp,
        'auto_scale_lr': settings.auto_scale_lr,
        'evaluations': settings.evaluations,
    }
    data = {network.name: data_digest(network) for network in networks}
    runs = []
    for seed in range(settings.seeds):
        for network in networks:
            for start in settings.starts:
                if start != 'scratch' and (network.name, CHECKPOINTS[start]) not in starts:
                    continue
                path, identity = (
                    (None, None) if start == 'scratch' else starts[network.name, CHECKPOINTS[start]]
                )
                own = {
                    'start': start,
                    'checkpoint': identity,
                    'seed': seed,
                    'budget': settings.budgets[network.task],
                    'data': data[network.name],
                    'config': config_digest(network),
                }
                name = f'{network.task}-{network.name}-{start}-seed{seed}'
                folder = settings.out / 'runs' / name
                runs.append(Run(folder, {**common, **own}, network, start, seed, path))
    return runs


def check_not_mixed(runs: list[Run]) -> None:
    """Refuse to go on in a folder with results of other settings.

    Raises:
        UsageError: If a run was begun with settings that differ.
    """
    for run in runs:
        old = read_json(run.folder / 'settings.json')
        new = json.loads(json.dumps(run.settings))
        if old is None or old == new:
            continue
        keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        differences = ', '.join(
            f'{key} {old.get(key)!r} there, {new.get(key)!r} now' for key in keys
        )
        raise UsageError(
            f'{run.folder} was made with other settings ({differences}). Results of different '
            'settings are not mixed: name another --out, or delete that folder'
        )


def run_config(run: Run, settings: TransferSettings) -> Config:
    """The config of a training, with the hook that fills the network and measures."""
    cfg = copy.deepcopy(run.network.cfg)
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.pop('pretrained', None)
    fit_schedule(cfg, settings.budgets[run.network.task], settings.evaluations)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=run.seed)
    cfg.work_dir = os.fspath(run.folder)
    hooks = []
    for hook in cfg.get('custom_hooks') or []:
        if hook.get('type') == 'SparsityReportHook':
            hook = dict(hook, require_sparse=run.start == 'sparse')
        hooks.append(hook)
    transfer = dict(
        type='TransferHook',
        start=run.start,
        checkpoint=None if run.checkpoint is None else os.path.abspath(run.checkpoint),
        narrow=run.network.is_demo and run.network.is_shiftwise,
        seed=run.seed,
        scores=run.network.scores,
        digest=run.digest,
        begun=time.time(),
    )
    cfg.custom_hooks = [*hooks, transfer]
    return cfg


def config_digest(network: Network) -> str:
    """Digest of a config; where its data and its checkpoint lie does not count."""
    cfg = network.cfg.to_dict()
    cfg['model'] = {**cfg['model'], 'backbone': {**cfg['model']['backbone'], 'init_cfg': None}}
    for key in ('work_dir', 'mini_backbone'):
        cfg.pop(key, None)
    text = json.dumps(cfg, sort_keys=True, default=str)
    root = json.dumps(str(network.data))[1:-1]
    text = text.replace(str(cfg.get('data_root') or root), '<data>').replace(root, '<data>')
    return digest(text)


def data_digest(network: Network) -> str:
    """Digest of the data: annotation files, and the names in the folders of images."""
    seen = []
    for loader in ('train_dataloader', 'val_dataloader'):
        for dataset in iter_datasets(network.cfg[loader].dataset):
            prefix = dataset.get('data_prefix') or {}
            for part in [dataset.get('ann_file'), *prefix.values()]:
                if part and isinstance(part, str):
                    seen.append((part, _content(Path(dataset.get('data_root') or '', part))))
    if network.is_demo:
        seen.append(read_json(network.data.parent / 'demo_data.json'))
    return digest(seen)


def _content(path: Path) -> Any:
    if path.is_dir():
        names = '\n'.join(sorted(os.listdir(path)))
        return hashlib.sha256(names.encode()).hexdigest()
    if path.is_file():
        size = path.stat().st_size
        return file_digest(path) if size <= _WHOLE_FILE else size
    return None


def training_digest() -> str:
    """Digest of the code that decides how a run learns."""
    package = Path(mmsw.__file__).parent
    files = [Path(__file__).with_name('hook.py'), package / 'apis/schedule.py']
    return digest([network_digest(), source_digest([package / 'engine', *files])])
