"""Whether data sets can be built, and something can be learned or measured from them."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.registry import DATASETS

from mmsw.datasets.coco_annotations import category_names, explain_coco_file
from mmsw.errors import DataError, UsageError
from mmsw.wording import listed

from ..data import evaluator_files, iter_datasets
from .built_datasets import infos, leaves
from .class_names import explain_metainfo
from .image_files import endings, left_out_pictures

# Data sets of mmpretrain that take folders for classes, and how they refuse some.
_CLASS_FOLDER_SETS = ('ImageNet', 'CustomDataset')
_REFUSALS = (AssertionError, RuntimeError, FileNotFoundError)


@contextmanager
def explained_errors(dataloader: Any, name: str, evaluator: Any = None) -> Iterator[None]:
    """Say what is wrong with the data when building from them fails.

    Only then annotation files are read a second time.

    Args:
        dataloader: Config of a data loader.
        name: Of the loader, for the message.
        evaluator: Config of its evaluator.

    Raises:
        DataError: Instead of an error of the block, if the data explain it.
    """
    try:
        yield
    except (UsageError, DataError):
        raise
    except Exception as error:  # data sets fail in their own ways
        dataset = dataloader.get('dataset') if isinstance(dataloader, dict) else None
        parts = list(iter_datasets(dataset)) if isinstance(dataset, dict) else []
        files = [
            os.path.join(item.get('data_root') or '', item['ann_file'])
            for item in parts
            if isinstance(item.get('ann_file'), str)
        ]
        for path in [*files, *evaluator_files(evaluator)]:
            problem = _explain(path)
            if problem:
                raise DataError(f'annotation file {path} {problem}') from error
        for item in parts:
            problem = explain_metainfo(item, error)
            if problem:
                raise UsageError(f'{name}.dataset: {problem}') from error
            _check_size(item, name, error)
            _check_class_folders(item, name, error)
        raise


def _check_size(dataset: dict, name: str, error: Exception) -> None:
    """Raise if a data set of this config is empty: mmengine cannot serialize one."""
    if isinstance(dataset.get('indices'), (list, tuple)) and not dataset['indices']:
        raise UsageError(
            f'{name}.dataset.indices is empty, so it has no image. A config with own_data.val as a '
            'share gets this where its data are not at hand: read it where they are'
        ) from error
    try:
        built = DATASETS.build({**copy.deepcopy(dataset), 'pipeline': [], 'serialize_data': False})
        number = len(built)
    except Exception:  # the first error tells
        return
    if number == 0:
        raise DataError(f'{name} has no image: {_why_empty(built)}') from error


def _check_class_folders(dataset: dict, name: str, error: Exception) -> None:
    """Raise if a data set of mmpretrain, whose folders are its classes, refused them."""
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    known = str(dataset.get('type')).endswith(_CLASS_FOLDER_SETS)
    if not (known and isinstance(prefix, str)):
        return
    folder = os.path.join(dataset.get('data_root') or '', prefix)
    if isinstance(error, _REFUSALS) and os.path.isdir(folder):
        number = sum(entry.is_dir() for entry in os.scandir(folder))
        raise DataError(
            f'{name} cannot be read from {folder} (folders in it: {number}): '
            f'{str(error).rstrip(".")}. Expected is one folder of images per class; for other '
            "classes than those of ImageNet take dataset.type='CustomDataset', and set num_classes "
            'in model.head and model.data_preprocessor'
        ) from error


def check_dataset(dataset: Any, name: str, needs_annotations: bool = True) -> None:
    """Refuse a data set that nothing can be learned or measured from.

    Args:
        dataset: A data set that mmengine built; wrapped ones are looked through.
        name: Of its loader, for the message.
        needs_annotations: Whether one without any annotation is refused.

    Raises:
        DataError: If it has no image or no annotation, or the classes of the config are not those
            of a COCO annotation file in the file's order: mmdet numbers classes in that order, so
            it would take one class for another without a word.
    """
    parts = list(leaves(dataset))
    for leaf in parts:
        _check_categories(leaf)
    if len(dataset) == 0:
        raise DataError(f'{name} has no image: {"; ".join(map(_why_empty, parts))}')
    if needs_annotations and not any(map(_has_annotations, parts)):
        hint = (
            '. To predict without truth, test with --no-truth, or set format_only=True in the '
            'evaluator'
        )
        raise DataError(
            f'{name} has no annotation: {"; ".join(map(_why_bare, parts))}'
            f'{"" if name.startswith("train") else hint}'
        )


def _has_annotations(dataset: Any) -> bool:
    """Whether objects are known, or cannot be asked for; stops at the first image with one."""
    if not hasattr(dataset, 'get_data_info'):
        return True
    for info in infos(dataset):
        if 'instances' not in info:
            return True
        if any(not item.get('ignore_flag') for item in info['instances']):
            return True
    return False


def _check_categories(dataset: Any) -> None:
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    path = getattr(dataset, 'ann_file', None)
    reader = getattr(type(dataset), 'load_data_list', None)  # others may sort their categories
    if getattr(reader, '__qualname__', '') != 'CocoDataset.load_data_list':
        return
    if not (classes and _is_json(path)):
        return
    names = category_names(path)
    if names is None or [name for name in names if name in classes] == list(classes):
        return
    absent = [name for name in classes if name not in names]
    problem = f'lacks {listed(absent)}' if absent else f'has the order {listed(names)}'
    raise DataError(
        f'the classes of the config do not go with the categories of {path}: they are '
        f'{listed(classes)}, and the file {problem}. List in metainfo.classes the names that the '
        f'file has, in its order; its categories are {listed(names)}'
    )


def _why_empty(dataset: Any) -> str:
    path = getattr(dataset, 'ann_file', None)
    if not path:
        folders = getattr(dataset, 'data_prefix', None) or {}
        suffix = getattr(dataset, 'img_suffix', '')
        others = left_out_pictures(dataset)
        hint = f'; of other pictures there {endings(others)}: set img_suffix' if others else ''
        places = ', '.join(str(item) for item in folders.values() if item)
        return f'no file *{suffix} in {places}{hint}'
    problem = _explain(path)
    if problem:
        return f'annotation file {path} {problem}'
    rule = getattr(dataset, 'filter_cfg', None)
    if rule:
        return (
            f'filter_cfg={dict(rule)} leaves none of the images that {path} lists, since none has '
            f'an annotation of {listed(dataset.metainfo.get("classes") or [])} or none is large '
            'enough'
        )
    return f'{path} lists none'


def _why_bare(dataset: Any) -> str:
    path = getattr(dataset, 'ann_file', None)
    problem = path and _explain(path)
    if problem:
        return f'annotation file {path} {problem}'
    classes = listed(dataset.metainfo.get('classes') or [])
    return (
        f'{path} lists images, but no object of {classes} with an area inside of its image; crowds '
        '(iscrowd) do not count'
    )


def _explain(path: Any) -> str | None:
    return explain_coco_file(path) if _is_json(path) else None


def _is_json(path: Any) -> bool:
    return isinstance(path, str) and path.endswith('.json') and '://' not in path
