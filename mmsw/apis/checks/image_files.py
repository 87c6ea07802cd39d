"""Which files of a folder a data set of mmsegmentation takes, leaves out and lacks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from logging import Logger
from typing import Any

from mmengine.dist import is_main_process

from mmsw.errors import DataError

from .built_datasets import infos, label_map_loaders, leaves, lists_by_suffix, own_parts, transforms

_PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def check_image_files(dataset: Any, name: str, logger: Logger) -> None:
    """Refuse images without their label map, and warn of what is left out.

    Names are compared, no file is read. Where code of one's own may look for files elsewhere,
    nothing is refused; where it makes the list, nothing is left out.

    Args:
        dataset: A built data set; what is no local one of mmseg is left alone.
        name: Of its loader, for messages.
        logger: For warnings.

    Raises:
        DataError: If there are such images, or files in a list that do not exist.
    """
    own, parts = own_parts(dataset), list(leaves(dataset))
    for leaf in parts:
        if not _is_local(leaf):
            continue
        if not own and label_map_loaders(leaf):
            _check_pairs(leaf, name)
        chosen = getattr(leaf, 'ann_file', '') or getattr(leaf, '_indices', None) is not None
        if chosen or not lists_by_suffix(leaf) or not is_main_process():
            continue  # others are left out on purpose
        beside = [part for part in parts if _is_local(part) and _folder(part) == _folder(leaf)]
        taken = tuple(part.img_suffix for part in beside)
        left_out = [path for path in left_out_pictures(leaf) if not path.endswith(taken)]
        if left_out:
            logger.warning(
                f'{name} leaves out {len(left_out)} of the {len(left_out) + len(leaf)} pictures in '
                f'{leaf.data_prefix["img_path"]}: img_suffix={leaf.img_suffix!r}, but '
                f'{endings(left_out)}. Rename them, or take them too: '
                f'own_data.image_suffix={_suffixes(taken, left_out)} in a config with own data, '
                'in any other a second data set with their img_suffix (ConcatDataset)'
            )


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


def _suffixes(taken: Iterable[str], left_out: Iterable[str]) -> tuple[str, ...]:
    """Endings of all pictures; those that differ by case alone count once, as for own data."""
    found: dict[str, str] = {}
    for ending in (*taken, *(os.path.splitext(path)[1] for path in sorted(left_out))):
        found.setdefault(ending.lower(), ending)
    return tuple(found.values())


def endings(paths: Iterable[str]) -> str:
    """For instance ``'3 end in .JPG, 1 ends in .png'``."""
    found = Counter(os.path.splitext(path)[1] for path in paths).most_common()
    return ', '.join(f'{number} end{"s" * (number == 1)} in {ending}' for ending, number in found)


def _is_local(dataset: Any) -> bool:
    folders = getattr(dataset, 'data_prefix', None)
    readers = [dataset, *(getattr(item, 'loader', item) for item in transforms(dataset))]
    backends = [getattr(item, 'backend_args', None) or {} for item in readers]
    return (
        hasattr(dataset, 'seg_map_suffix')
        and hasattr(dataset, 'img_suffix')
        and all(item.get('backend', 'local') == 'local' for item in backends)
        and isinstance(folders, dict)
        and not any('://' in str(folder) for folder in folders.values())
    )


def _folder(dataset: Any) -> str:
    return os.path.abspath(dataset.data_prefix.get('img_path') or '')


def _check_pairs(dataset: Any, name: str) -> None:
    """Refuse missing files."""
    exists = _Existing()
    skips = any(getattr(item, 'ignore_empty', False) for item in transforms(dataset))
    images, lacking = [], []
    for info in infos(dataset):
        image, labels = info.get('img_path'), info.get('seg_map_path')
        if not (isinstance(image, str) and isinstance(labels, str)):
            continue
        if image == labels:
            raise DataError(
                f'{name}: {image} is image and label map at once: correct data_prefix and '
                'seg_map_suffix'
            )
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


def _more(found: list, number: int, name: str) -> str:
    return f' (missing are {len(found)} for the {number} images of {name})'


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
    """Whether files exist; lists every folder once, and asks for what it does not find there.

    The file system may not tell upper from lower case.
    """

    def __init__(self) -> None:
        self.folders: dict[str, set[str]] = {}

    def __call__(self, path: str) -> bool:
        folder, file = os.path.split(path)
        if folder not in self.folders:
            known = os.path.isdir(folder or '.')
            self.folders[folder] = set(os.listdir(folder or '.')) if known else set()
        return file in self.folders[folder] or os.path.exists(path)
