"""Looking into built data sets: their parts, what loads their files, what they list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmsw.component_name import component_package
from mmsw.datasets import LoadValidAnnotations

_INNER = ('transforms', 'subroutines', 'pipeline')  # where transforms keep others
# Packages whose transforms and data sets do with labels and paths what is known here.
_KNOWN = ('torch', 'mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmpretrain', 'mmsw')
_BASES = ('BaseSegDataset.load_data_list', 'BaseDataset.filter_data')


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside of wrappers such as ``ConcatDataset``, or the set itself."""
    inner = _inner(dataset)
    for item in inner:
        yield from leaves(item)
    if not inner:
        yield dataset


def _inner(dataset: Any) -> Sequence[Any]:
    return getattr(dataset, 'datasets', None) or [
        getattr(dataset, key) for key in ('dataset', '_dataset') if hasattr(dataset, key)
    ]


def class_names(dataset: Any) -> list | tuple | None:
    """Names of the classes, where a data set has a list of them."""
    found = getattr(dataset, 'metainfo', None)
    classes = found.get('classes') if isinstance(found, dict) else None
    return classes if isinstance(classes, (list, tuple)) else None


def transforms(part: Any) -> Iterator[Any]:
    """The transforms of a data set or of a transform, those inside of others as well."""
    for key in _INNER:
        inner = getattr(part, key, None)
        for item in inner if isinstance(inner, (list, tuple)) else [inner]:
            if item is not None and item is not part:
                yield item
                yield from transforms(item)


def label_loaders(dataset: Any) -> list[LoadValidAnnotations]:
    """What loads the annotations of a data set."""
    return [item for item in transforms(dataset) if isinstance(item, LoadValidAnnotations)]


def label_map_loaders(dataset: Any) -> list[LoadValidAnnotations]:
    """What loads label maps of mmseg, among what loads the annotations of a data set."""
    return [item for item in label_loaders(dataset) if item.label_maps is not None]


def of_others(kinds: Iterable[Any]) -> bool:
    """Whether there is a class or function of other people, which may do anything to a sample."""
    return any(component_package(kind) not in _KNOWN for kind in kinds)


def own_parts(dataset: Any) -> bool:
    """Whether somebody's own code sees the samples of a data set, or of a part of it.

    A transform of one's own may give labels another meaning, or find files in another place.
    """
    methods = [getattr(type(dataset), key, None) for key in ('__getitem__', 'prepare_data')]
    steps = [type(item) for item in transforms(dataset) if not isinstance(item, dict)]
    own = [item for item in methods if item is not None] + steps
    return of_others(own) or any(map(own_parts, _inner(dataset)))


def lists_by_suffix(dataset: Any) -> bool:
    """Whether a data set takes what mmseg finds in its folders, and nothing else."""
    methods = (getattr(type(dataset), key.partition('.')[2], None) for key in _BASES)
    return tuple(getattr(method, '__qualname__', '') for method in methods) == _BASES


def infos(dataset: Any, most: int | None = None) -> Iterator[dict]:
    """What a data set knows of its images, without loading them.

    Args:
        dataset: One without parts; another than mmengine's has nothing to say.
        most: As many images at most, spread evenly.

    Yields:
        One dict per image.
    """
    if not hasattr(dataset, 'get_data_info'):
        return
    number = len(dataset)
    count = number if most is None else min(number, most)
    for index in range(count):
        yield dataset.get_data_info(index * number // count)
