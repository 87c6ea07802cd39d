"""Data sets and evaluators of a detection, from ``own_data``."""

from __future__ import annotations

import copy
import logging
import os
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmsw.component_name import component_name
from mmsw.errors import UsageError
from mmsw.wording import listed

from .classes import colors_of, names_given
from .coco_file import CocoSummary, in_order, summary
from .files import held_out, is_address
from .heads import drop_mask_heads
from .loaders import fill_loader, metrics_of
from .pipelines import fill_pipelines, filled_steps
from .settings import SPLITS, OwnData

# What mmdet's packing step hands on where a config does not say it.
_PACKED = (
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction',
)  # fmt: skip


def fill_detection(cfg: Config, own: OwnData) -> tuple[int, int | None]:
    """Fill in what a detector needs, in place.

    Returns:
        Number of classes, and of training images where it is known.

    Raises:
        UsageError: If the classes or masks are not as ``own_data`` says.
        mmsw.errors.DataError: If an annotation file is damaged.
    """
    path = own.path('train', 'annotations')
    found = summary(path) if not is_address(path) and os.path.isfile(path) else None
    names = _names(own, path, found)
    if found and own.masks and found.objects and not found.masks:
        raise UsageError(
            f'own_data.masks=True, but none of the {found.objects} annotations of {path} has a '
            'mask (segmentation): set own_data.masks=False to learn boxes alone'
        )
    metainfo = dict(classes=names, palette=_colors(own, names))
    datasets, images = _datasets(own, metainfo, found)
    for split, items in datasets.items():
        fill_loader(cfg, split, items)
        fill_pipelines(cfg.get(f'{split}_dataloader'), own)
        _fill_evaluator(cfg, split, own)
    for key in ('train_pipeline', 'test_pipeline', 'tta_pipeline'):
        if cfg.get(key):
            cfg[key] = filled_steps(cfg[key], own)
    if not own.masks:
        drop_mask_heads(cfg.get('model') or {})
    return len(names), images


def _colors(own: OwnData, names: tuple[str, ...]) -> list:
    """Colours of the classes, which may stand in another order than in ``own_data``."""
    colors = colors_of(own, len(names))
    given = names_given(own)
    if own.palette is None or given is None:
        return colors
    return [colors[given.index(name)] for name in names]


def _names(own: OwnData, path: str, found: CocoSummary | None) -> tuple[str, ...]:
    given = names_given(own)
    if given is not None:
        return in_order(given, found) if found else given
    if found is None:
        raise UsageError(
            f'own_data.classes=None takes the categories of {path} (own_data.train.annotations), '
            'which does not exist: put it there, name its folder with '
            '--cfg-options own_data.data_root=PATH, or list the classes with own_data.classes=A,B'
        )
    if found.left_out:
        print_log(
            f'own_data.classes: {listed(found.left_out)} of {path} only holds other categories '
            'together and has no object, so it is left out',
            'current',
            logging.WARNING,
        )
    if not found.classes:
        raise UsageError(f'own_data.classes=None, but {path} has no category')
    return found.classes


def _datasets(
    own: OwnData, metainfo: dict, found: CocoSummary | None
) -> tuple[dict[str, list[dict]], int | None]:
    """The data set of every loader, and the number of training images."""
    datasets = {}
    for split, parts in own.splits.items():
        datasets[split] = dict(
            type='CocoDataset',
            data_root=own.data_root,
            metainfo=copy.deepcopy(metainfo),
            ann_file=parts['annotations'],
            data_prefix=dict(img=parts['images']),
        )
    images = len(found.images) if found else None
    if own.held_out:
        datasets['val'] = copy.deepcopy(datasets['train'])
        if found:
            chosen = held_out(found.images, own.held_out)
            order = range(len(found.images))
            datasets['train']['indices'] = [index for index in order if index not in chosen]
            datasets['val']['indices'] = [index for index in order if index in chosen]
            images = len(order) - len(chosen)
        else:  # a run of this config is refused, not one that validates on what it trains on
            datasets['val']['indices'] = []
    datasets['val']['test_mode'] = True
    datasets.setdefault('test', copy.deepcopy(datasets['val']))
    datasets['test']['test_mode'] = True
    return {split: [datasets[split]] for split in SPLITS}, images


def _fill_evaluator(cfg: Config, split: str, own: OwnData) -> None:
    """Annotation file and kinds of scores of the metrics that leave them open."""
    key = f'{split}_evaluator'
    if not cfg.get(key):
        return
    cfg[key] = copy.deepcopy(cfg[key])
    used = split if split in own.splits else 'val'
    for metric in metrics_of(cfg[key]):
        if component_name(metric.get('type')) != 'CocoMetric':
            continue
        if metric.get('metric', 0) is None:
            metric['metric'] = ['bbox', 'segm'] if own.masks else 'bbox'
        if metric.get('ann_file', 0) is not None:
            continue
        if used in own.splits:
            metric['ann_file'] = own.path(used, 'annotations')
        else:  # a part of the training file: the truth comes with the images
            _give_instances(cfg[f'{split}_dataloader'])


def _give_instances(part: Any) -> None:
    """Let the packing step of every pipeline hand on the annotations."""
    items = part.values() if isinstance(part, dict) else part
    if isinstance(part, dict) and component_name(part.get('type')) == 'PackDetInputs':
        part['meta_keys'] = (*part.get('meta_keys', _PACKED), 'instances')
        return
    for item in items if isinstance(items, (list, tuple)) or isinstance(part, dict) else ():
        if isinstance(item, (dict, list, tuple)):
            _give_instances(item)
