"""Which files of a folder a data set of mmsegmentation takes, leaves out and lacks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from logging import Logger
from typing import Any

from mmengine.dist import is_main_process

from mmsw.errors import DataError

from .built_datasets import infos, label_loaders, leaves, transforms

_PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def check_image_files(dataset: Any, name: str, logger: Logger) -> None:
    """Refuse images without their label map, and warn of what is left out.

    Names are compared, no file is read.

    Args:
        dataset: A built data set; what is no local one of mmseg is left alone.
        name: Of its loader, for messages.
        logger: For warnings.

    Raises:
        DataError: If there are such images, or files in a list that do not exist.
    """
    for leaf in leaves(dataset):
        if not _is_local(leaf):
            continue
        loads_labels = any(item.label_maps is not None for item in label_loaders(leaf))
        used = _check_pairs(leaf, name) if loads_labels else set()
        chosen = getattr(leaf, 'ann_file', '') or getattr(leaf, '_indices', None) is not None
        if chosen or not is_main_process():  # others are left out on purpose
            continue
        left_out = left_out_pictures(leaf)
        if left_out:
            folder, suffix = leaf.data_prefix['img_path'], leaf.img_suffix
            logger.warning(
                f'{name} leaves out {len(left_out)} of the {len(left_out) + len(leaf)} pictures in '
                f'{folder}: img_suffix={suffix!r}, but {endings(left_out)}. Rename them, or add a '
                'data set with their img_suffix (ConcatDataset)'
            )
        elif used:
            _warn_of_lone_labels(leaf, used, name, logger)


def left_out_pictures(dataset: Any) -> list[str]:
    """Pictures in the folder of the images whose names do not end as ``img_suffix`` says.

    Not among them are label maps in the same folder, and other forms of an image that is used.

    Args:
        dataset: A local data set of mmseg.

    Returns:
        Paths below the folder, in order.
    """
    suffix = getattr(dataset, 'img_suffix', None)
    folders = getattr(dataset, 'data_prefix', None)
    folder = folders.get('img_path') if isinstance(folders, dict) else None
    if not (isinstance(suffix, str) and suffix and isinstance(folder, str)):
        return []
    if not os.path.isdir(folder):
        return []
    begin = os.path.splitext(f'x{suffix}')[0][1:].lower()  # of '_leftImg8bit.png'
    others = tuple(f'{begin}{ending}' for ending in _PICTURES)
    labels = getattr(dataset, 'seg_map_suffix', None)
    inside = _lies_in(folders.get('seg_map_path'), folder)
    files = list(_files(folder))
    taken = {path[: -len(suffix)] for path in files if path.endswith(suffix)}
    return sorted(
        path
        for path in files
        if path.lower().endswith(others)
        and not path.endswith(suffix)
        and os.path.splitext(path)[0].removesuffix(begin) not in taken
        and not (inside and labels and path.endswith(labels))
    )


def endings(paths: Iterable[str]) -> str:
    """For instance ``'3 end in .JPG, 1 ends in .png'``."""
    found = Counter(os.path.splitext(path)[1] for path in paths).most_common()
    return ', '.join(f'{number} end{"s" * (number == 1)} in {ending}' for ending, number in found)


def _is_local(dataset: Any) -> bool:
    folders = getattr(dataset, 'data_prefix', None)
    backend = (getattr(dataset, 'backend_args', None) or {}).get('backend', 'local')
    return (
        hasattr(dataset, 'seg_map_suffix')
        and hasattr(dataset, 'img_suffix')
        and backend == 'local'
        and isinstance(folders, dict)
        and not any('://' in str(folder) for folder in folders.values())
    )


def _check_pairs(dataset: Any, name: str) -> set[str]:
    """Refuse missing files; returns the label maps that belong to an image."""
    exists = _Existing()
    skips = any(getattr(item, 'ignore_empty', False) for item in transforms(dataset))
    images, lacking, used = [], [], set()
    for info in infos(dataset):
        image, labels = info.get('img_path'), info.get('seg_map_path')
        if not (isinstance(image, str) and isinstance(labels, str)):
            continue
        if image == labels:
            raise DataError(
                f'{name}: {image} is image and label map at once: correct data_prefix and '
                'seg_map_suffix'
            )
        used.add(labels)
        if not exists(image):
            images.append(image)
        elif not exists(labels):
            lacking.append((labels, image))
    number = len(dataset)
    if images and not skips:
        suffix, more = dataset.img_suffix, _more(images, number, name)
        cure = 'put it there, or correct the list'
        if os.path.exists(images[0].removesuffix(suffix)):
            cure = f'leave out endings in the list: {suffix!r} (img_suffix) is added to every line'
        raise DataError(f'image file {images[0]} does not exist{more}: {cure}')
    if lacking:
        (labels, image), more = lacking[0], _more(lacking, number, name)
        raise DataError(
            f'label map {labels} of image {image} does not exist{more}: put it there, correct the '
            'paths (data_root, data_prefix, seg_map_suffix), or take the image out of the data set'
        )
    return used


def _more(found: list, number: int, name: str) -> str:
    return f' (missing are {len(found)} for the {number} images of {name})'


def _warn_of_lone_labels(dataset: Any, used: set[str], name: str, logger: Logger) -> None:
    folder = dataset.data_prefix.get('seg_map_path')
    if not (folder and os.path.isdir(folder)):
        return
    if _lies_in(dataset.data_prefix.get('img_path'), folder):
        return  # images and label maps are mixed
    lone = [
        path
        for path in _files(folder)
        if path.endswith(dataset.seg_map_suffix) and os.path.join(folder, path) not in used
    ]
    if lone:
        logger.warning(
            f'{name}: {len(lone)} of the {len(lone) + len(used)} label maps in {folder} have no '
            f'image, for instance {min(lone)}; they are left out'
        )


def _files(folder: str, below: str = '') -> Iterator[str]:
    """What mmseg finds in a folder and below it; mmengine takes ten times as long."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith('.') and entry.is_file():
                yield below + entry.name
            elif entry.is_dir():
                yield from _files(entry.path, os.path.join(below, entry.name, ''))


def _lies_in(folder: Any, other: str) -> bool:
    inner, outer = (os.path.join(os.path.abspath(str(item or '')), '') for item in (folder, other))
    return bool(folder) and inner.startswith(outer)


class _Existing:
    """Whether files exist; lists every folder once."""

    def __init__(self) -> None:
        self.folders: dict[str, set[str]] = {}

    def __call__(self, path: str) -> bool:
        folder, file = os.path.split(path)
        if folder not in self.folders:
            known = os.path.isdir(folder or '.')
            self.folders[folder] = set(os.listdir(folder or '.')) if known else set()
        return file in self.folders[folder]
