"""Data sets, evaluators and crops of a segmentation, from ``own_data``."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config

from mmsw.component_name import component_name
from mmsw.errors import UsageError
from mmsw.wording import listed

from .classes import colors_of, names_given
from .files import ImageGroup, held_out, image_groups, is_at_hand, listed_images
from .loaders import fill_loader, metrics_of
from .pipelines import fill_pipelines, filled_steps, without_truth
from .settings import OwnData


def fill_segmentation(cfg: Config, own: OwnData) -> tuple[int, int | None]:
    """Fill in what a segmentation needs, in place.

    Returns:
        Number of classes, and of training images where it is known.

    Raises:
        UsageError: If the classes or the images are not as ``own_data`` says.
    """
    names = names_given(own)
    if names is None:
        raise UsageError(
            'own_data.classes is empty: label maps hold numbers only, so list the names in the '
            "order of the label values, for instance ('background', 'road')"
        )
    _check_masks(own, names)
    colors = colors_of(own, len(names))
    common = dict(
        data_root=own.data_root,
        metainfo=dict(classes=names, palette=colors),
        seg_map_suffix=own.label_suffix,
        reduce_zero_label=own.reduce_zero_label,
    )
    datasets, images = _datasets(own, common)
    for split, found in datasets.items():
        fill_loader(cfg, split, found)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        fill_pipelines(cfg.get(key), own)
    for key in ('train_pipeline', 'test_pipeline', 'tta_pipeline'):
        if cfg.get(key):
            cfg[key] = filled_steps(cfg[key], own)
    if 'test' in own.splits and 'labels' not in own.splits['test']:
        _test_without_truth(cfg)
    _fill_sizes(cfg.get('model') or {}, own)
    return len(names), images


def _check_masks(own: OwnData, names: tuple[str, ...]) -> None:
    if own.binary_masks and len(names) != 2:
        raise UsageError(
            f'own_data.binary_masks=True is for two classes, the first drawn with 0 and the second '
            f'with 255, but own_data.classes has {len(names)} ({listed(names)})'
        )


def _datasets(own: OwnData, common: dict) -> tuple[dict[str, list[dict]], int | None]:
    """The data sets of every loader, one per ending, and the number of training images."""
    images_of = {split: image_groups(own, split) for split in own.splits}
    found = {split: _of_split(own, split, images_of[split], common) for split in own.splits}
    groups = images_of['train']
    images: int | None = sum(len(group.stems) for group in groups)
    if 'list' in own.splits['train']:
        images = listed_images(own.path('train', 'list')) if is_at_hand(own) else None
    elif not images:
        images = None
    if own.held_out:
        found['val'] = copy.deepcopy(found['train'])
        images = _hold_out(own, found, groups)
    found.setdefault('test', copy.deepcopy(found['val']))
    return found, images


def _hold_out(own: OwnData, found: dict[str, list[dict]], groups: list[ImageGroup]) -> int | None:
    """Give each training image to training or validation, in place; returns how many train."""
    if 'list' in own.splits['train']:
        raise UsageError(
            f'own_data.val={own.held_out} does not go with own_data.train.list: write a second '
            'list, and name it as own_data.val.list'
        )
    names = [stem for group in groups for stem in group.stems]
    if not names:  # the data are not at hand: a run of this config is refused, not one on the same
        for item in found['val']:
            item['indices'] = []
        return None
    chosen = held_out(names, own.held_out)
    start = 0
    for train, val, group in zip(found['train'], found['val'], groups, strict=True):
        number = len(group.stems)
        train['indices'] = [index for index in range(number) if start + index not in chosen]
        val['indices'] = [index for index in range(number) if start + index in chosen]
        start += number
    for split in ('train', 'val'):
        found[split] = [item for item in found[split] if item['indices']]
    return len(names) - len(chosen)


def _of_split(own: OwnData, split: str, groups: list[ImageGroup], common: dict) -> list[dict]:
    parts = own.splits[split]
    prefix = dict(img_path=parts['images'])
    if 'labels' in parts:
        prefix['seg_map_path'] = parts['labels']
    settings: dict[str, Any] = dict(type='BaseSegDataset', **copy.deepcopy(common))
    if 'list' in parts:
        settings['ann_file'] = parts['list']
    return [dict(settings, data_prefix=dict(prefix), img_suffix=group.suffix) for group in groups]


def _test_without_truth(cfg: Config) -> None:
    """Let the test write label maps, since there is nothing to compare them with."""
    for dataset in _leaves(cfg.test_dataloader.dataset):
        dataset['pipeline'] = without_truth(dataset['pipeline'])
    cfg.test_evaluator = copy.deepcopy(cfg.test_evaluator)
    for metric in metrics_of(cfg.test_evaluator):
        if component_name(metric.get('type')) == 'IoUMetric':
            metric['format_only'] = True


def _leaves(dataset: dict) -> list[dict]:
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    found = [leaf for item in inner if isinstance(item, dict) for leaf in _leaves(item)]
    return found or [dataset]


def _fill_sizes(model: dict, own: OwnData) -> None:
    """The size that batches are padded to, and the sliding window."""
    preprocessor = model.get('data_preprocessor')
    if isinstance(preprocessor, dict) and preprocessor.get('size') is not None:
        preprocessor['size'] = own.size
    test = model.get('test_cfg')
    if isinstance(test, dict) and test.get('mode') == 'slide':
        test['crop_size'] = own.size
        test['stride'] = tuple(max(1, side * 2 // 3) for side in own.size)
