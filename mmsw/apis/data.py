"""The data sets that a config names, and whether their files are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.errors import UsageError

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def iter_datasets(dataset: dict) -> Iterator[dict]:
    """The data sets inside of wrappers such as ``ConcatDataset``, or the set itself."""
    if isinstance(dataset.get('dataset'), dict):
        yield from iter_datasets(dataset['dataset'])
    elif isinstance(dataset.get('datasets'), (list, tuple)):
        for item in dataset['datasets']:
            yield from iter_datasets(item)
    else:
        yield dataset


def datasets_of(cfg: Config, loader: str) -> list[dict]:
    """The data sets of a loader; none where the config lacks it."""
    dataset = (cfg.get(loader) or {}).get('dataset')
    return list(iter_datasets(dataset)) if isinstance(dataset, dict) else []


def check_data(cfg: Config, loaders: Sequence[str] = LOADERS) -> None:
    """Check that the local folders and annotation files of the data loaders exist.

    Those of their evaluators as well. No file is read; :mod:`mmsw.apis.checks.datasets` does that.

    Args:
        cfg: The config.
        loaders: Keys of the loaders that will be used.

    Raises:
        UsageError: If something is missing; one message for all loaders.
    """
    needed: dict[str, list[str]] = {}  # data root -> what must lie below it
    for loader in loaders:
        for dataset in datasets_of(cfg, loader):
            root = str(dataset.get('data_root') or '')
            backend = (dataset.get('backend_args') or {}).get('backend', 'local')
            if '://' in root or backend != 'local':
                continue
            parts = needed.setdefault(root, [])
            parts += [part for part in data_parts(dataset) if part not in parts]
    problems = []
    for root, parts in needed.items():
        missing = [part for part in parts if not os.path.exists(os.path.join(root, part))]
        if root and not os.path.isdir(root):
            problems.append(f'data folder {root} does not exist; it needs {", ".join(parts)}')
        elif missing:
            problems.append(f'data folder {root or "."} lacks {", ".join(missing)}')
    named = {os.path.normpath(os.path.join(root, part)) for root in needed for part in needed[root]}
    for loader in loaders:
        key = loader.replace('_dataloader', '_evaluator')
        problems += [
            f'{key} needs {path}, which does not exist'
            for path in evaluator_files(cfg.get(key))
            if os.path.normpath(path) not in named and not os.path.exists(path)
        ]
    if problems:
        raise UsageError(
            f'{"; ".join(problems)} (working folder: {Path.cwd()}). Put the data there, or name '
            'their folder with --data-root PATH'
        )


def data_parts(dataset: dict) -> list[str]:
    """Local files and folders that the config of a data set names, below its ``data_root``."""
    prefix = dataset.get('data_prefix') or dataset.get('split')  # mmpretrain takes a string
    folders = prefix.values() if isinstance(prefix, dict) else [prefix]
    parts = [dataset.get('ann_file'), *folders]
    return [part for part in parts if isinstance(part, str) and part and '://' not in part]


def evaluator_files(evaluator: Any) -> list[str]:
    """Local annotation files of the metrics in the config of an evaluator."""
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    paths = [metric.get('ann_file') for metric in metrics if isinstance(metric, dict)]
    return [path for path in paths if isinstance(path, str) and path and '://' not in path]
