"""The networks of a benchmark: configs that are read, checked and given their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmsw.apis.backbone import build_backbone
from mmsw.apis.config import load_config, unfilled_config
from mmsw.component_name import component_name
from mmsw.demo import CLASSES
from mmsw.errors import UsageError
from mmsw.sparsity import masked_layers

from ..configs import read_config

TASKS = {'mmseg': 'seg', 'mmdet': 'det'}
_OWN_TASKS = {'segmentation': 'seg', 'detection': 'det'}  # as own_data names them
DEMO_FOLDERS = {'seg': 'ADEChallengeData2016', 'det': 'coco'}
# By type of evaluator: name of a score -> the key under which the evaluator gives it, and what
# makes it a percentage. The first score decides.
SCORES = {
    'IoUMetric': {'mIoU': ('mIoU', 1.0)},
    'CocoMetric': {'bbox AP': ('coco/bbox_mAP', 100.0), 'segm AP': ('coco/segm_mAP', 100.0)},
}


@dataclass(frozen=True)
class Network:
    """One config of a benchmark.

    Attributes:
        name: Of the config file, without ending.
        task: ``'seg'`` or ``'det'``.
        cfg: The config, with its data.
        data: Folder of the data as the config names it.
        is_demo: Whether it is for the demonstration scenes.
        is_shiftwise: Whether its backbone has small filters that can be pruned.
    """

    name: str
    task: str
    cfg: Config
    data: Path
    is_demo: bool
    is_shiftwise: bool

    @property
    def scores(self) -> dict[str, tuple[str, float]]:
        """Name of a score -> (key of the evaluator, factor to per cent); the first one decides."""
        kind, metrics = _evaluator(self.cfg)
        found = SCORES[kind]
        if kind != 'CocoMetric':
            return found
        return {name: found[name] for name in found if name.split()[0] in metrics}


def read_networks(
    configs: Sequence[tuple[str | None, Path]],
    data: Mapping[str, Path],
    cfg_options: Mapping[str, Any],
) -> list[Network]:
    """Read the configs of a benchmark.

    Args:
        configs: (task or None, path) of each; the task is checked against the config's own.
        data: Task -> folder of the data. For configs of the demonstration it is the folder that
            ``tools/make_demo_data.py`` makes, for others the data root.
        cfg_options: Changes to every config, dotted key -> value.

    Returns:
        The networks, in order.

    Raises:
        UsageError: If a config does not fit its task, or two have the same name.
    """
    networks: list[Network] = []
    for task, path in configs:
        network = _read(task, path, data, cfg_options)
        if network.name in [other.name for other in networks]:
            raise UsageError(
                f'two configs are named {network.name}: rename one, since runs are kept by name'
            )
        networks.append(network)
    return networks


def _read(
    task: str | None, path: Path, data: Mapping[str, Path], cfg_options: Mapping[str, Any]
) -> Network:
    own_task = (unfilled_config(path).get('own_data') or {}).get('task')
    # the schedule and the classes follow from own data, so they must be the right ones at once
    root = data.get(_OWN_TASKS.get(own_task, ''))
    cfg, toolbox, dataset = read_config(path, cfg_options, root)
    own = TASKS[toolbox]
    if task is not None and task != own:
        raise UsageError(f'{path} is a config for {own}, but was given as {task}={path}')
    if cfg.model.get('backbone') is None:
        raise UsageError(f'the model of {path} has no backbone to start from a checkpoint')
    kind, _ = _evaluator(cfg)
    if kind not in SCORES:
        raise UsageError(f'val_evaluator of {path} is {kind}; expected one of {list(SCORES)}')
    classes = tuple((dataset.get('metainfo') or {}).get('classes') or ())
    is_demo = own_task is None and classes in (CLASSES, CLASSES[1:])
    root = cfg.get('data_root') or dataset.get('data_root', '')
    folder = Path(root)
    if own in data and own_task is None:
        folder = data[own] / DEMO_FOLDERS[own] if is_demo else data[own]
    if folder != Path(root):
        cfg = load_config(cfg, data_root=folder)
    backbone = build_backbone(cfg)
    shiftwise = any(True for _ in masked_layers(backbone))
    return Network(path.stem, own, cfg, folder, is_demo, shiftwise)


def _evaluator(cfg: Config) -> tuple[str, list[str]]:
    """Type of the evaluator, and what it measures."""
    evaluator = cfg.val_evaluator
    if isinstance(evaluator, (list, tuple)):
        known = [item for item in evaluator if component_name(item.get('type')) in SCORES]
        evaluator = (known or list(evaluator))[0]
    metrics = evaluator.get('metric', 'bbox')
    return component_name(evaluator.get('type')), [metrics] if isinstance(metrics, str) else list(
        metrics
    )
