"""Looking into built data sets: their parts, what loads their files, what they list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mmsw.datasets import LoadValidAnnotations

# Packages whose transforms leave annotations what they mean.
_KNOWN = ('mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'mmsw')
_INNER = ('transforms', 'subroutines', 'pipeline')  # where transforms keep others


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside of wrappers such as ``ConcatDataset``, or the set itself."""
    inner = getattr(dataset, 'datasets', None) or [
        getattr(dataset, key) for key in ('dataset', '_dataset') if hasattr(dataset, key)
    ]
    for item in inner:
        yield from leaves(item)
    if not inner:
        yield dataset


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


def of_others(items: Iterable[Any]) -> bool:
    """Whether there is a transform of other people, which may give annotations another meaning."""
    return any(type(item).__module__.partition('.')[0] not in _KNOWN for item in items)


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
