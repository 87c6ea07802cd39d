"""Putting data sets in the place of those that stand for own data."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config

from mmsw.component_name import component_name
from mmsw.datasets.own_data import OwnData as Placeholder


def fill_loader(cfg: Config, split: str, datasets: list[dict]) -> None:
    """Replace the placeholders of a loader, in place; a data set that a config names stays.

    Args:
        cfg: The config.
        split: ``'train'``, ``'val'`` or ``'test'``.
        datasets: What to put there, joined if there are several.
    """
    loader = cfg.get(f'{split}_dataloader')
    if isinstance(loader, dict) and 'dataset' in loader:
        loader['dataset'] = _filled(loader['dataset'], datasets)


def _filled(value: Any, datasets: list[dict]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_filled(item, datasets) for item in value]
    if not isinstance(value, dict):
        return value
    if component_name(value.get('type')) != Placeholder.__name__:
        return {key: _filled(item, datasets) for key, item in value.items()}
    given = {key: item for key, item in value.items() if key != 'type'}
    parts = [{**item, **copy.deepcopy(given)} for item in datasets]
    return parts[0] if len(parts) == 1 else dict(type='ConcatDataset', datasets=parts)


def metrics_of(evaluator: Any) -> list[dict]:
    """The metrics in the config of an evaluator."""
    items = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    return [item for item in items if isinstance(item, dict)]
