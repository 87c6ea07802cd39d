"""Looking through the images of one data loader, all or a sample of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mmsw.wording import short

from ..checks.built_datasets import class_names, leaves, transforms
from .coco_left_out import left_out
from .duplicates import pixel_digest
from .headers import Header, read_header
from .reading import Sample, SampleReader
from .statistics import Statistics

SAMPLE = 200  # images per loader that are decoded
_SECONDS_READING = 6.0  # per loader, where no number is asked for
_SECONDS_HEADERS = 5.0  # per loader
_MOST_LISTED = 50_000  # images per data set whose entries are looked at
_MOST_SUSPECTS = 200
_SHOWN = 12

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Extent:
    """How much is looked at.

    Attributes:
        sample: Images per loader to decode; ``None`` for 200, and less where that takes long.
        everything: Decode all.
        seed: Of the sample.
    """

    sample: int | None = None
    everything: bool = False
    seed: int = 0


class Place(NamedTuple):
    """Where a sample stands, and what its data set says of it."""

    reader: SampleReader
    index: int
    image: str | None
    labels: str | None
    width: int | None
    height: int | None


@dataclass
class Survey:
    """What was found in one loader.

    Attributes:
        statistics: Figures.
        readers: Of its data sets.
        paths: Local image files.
        pixels: Image file for the pixels of each image that was decoded.
        shown: Samples for the contact sheet: reader and index.
    """

    statistics: Statistics
    readers: list[SampleReader]
    paths: list[str] = field(default_factory=list)
    pixels: dict[bytes, str] = field(default_factory=dict)
    shown: list[tuple[SampleReader, int]] = field(default_factory=list)


def survey(dataset: Any, name: str, extent: Extent, progress: Progress) -> Survey:
    """Look through the data set of a loader.

    Args:
        dataset: It was built, and its loaders know the classes.
        name: Key of the loader.
        extent: How much to look at.
        progress: Called with what is done, how many are, and of how many.

    Returns:
        What was found.
    """
    parts = list(leaves(dataset))
    first = parts[0]
    metainfo = getattr(first, 'metainfo', None) or {}
    found = Survey(
        Statistics(
            name,
            kinds=[type(part).__name__ for part in parts],
            classes=[str(item) for item in class_names(first) or ()],
            palette=metainfo.get('palette') if isinstance(metainfo, dict) else None,
            images=sum(len(part) for part in parts if hasattr(part, '__len__')),
            crop=_crop(dataset),
        ),
        [SampleReader(part) for part in parts if hasattr(part, 'get_data_info')],
    )
    for reader in found.readers:
        found.statistics.dropped += left_out(reader.dataset)
    places = list(_places(found, extent))
    order = np.random.default_rng(extent.seed).permutation(len(places))
    places = [places[index] for index in order]
    suspects = _look_at_headers(found.statistics, places, extent, progress)
    _read(found, places, suspects, extent, progress)
    return found


def _places(found: Survey, extent: Extent) -> Iterator[Place]:
    """Every image, once its objects are counted."""
    complete = True
    for reader in found.readers:
        number = len(reader.dataset)
        count = number if extent.everything else min(number, _MOST_LISTED)
        complete = complete and count == number
        for step in range(count):
            index = step * number // count
            info = reader.dataset.get_data_info(index)
            if 'instances' in info or 'gt_label' in info:
                found.statistics.objects.add(info)
            image, labels = info.get('img_path'), info.get('seg_map_path')
            image = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
            place = Place(reader, index, image, labels, info.get('width'), info.get('height'))
            if image and _is_local(place):
                found.paths.append(image)
            yield place
    found.statistics.objects_complete = complete


def _look_at_headers(
    statistics: Statistics, places: list[Place], extent: Extent, progress: Progress
) -> list[Place]:
    """Count sizes and formats; returns what may be broken, for the loaders to judge."""
    suspects, end = [], time.monotonic() + _SECONDS_HEADERS
    local = [place for place in places if place.image and _is_local(place)]
    for done, place in enumerate(local):
        if not extent.everything and time.monotonic() > end:
            break
        header = read_header(place.image)
        labels = None
        if header is not None:
            statistics.headers.append(header)
        if place.reader.reads_labels and isinstance(place.labels, str):
            labels = read_header(place.labels)
            if labels is not None:
                statistics.label_headers[f'{labels.format} {labels.mode}'] += 1
        if _is_suspect(place, header, labels):
            suspects.append(place)
        progress('headers', done + 1, len(local))
    return suspects


def _is_suspect(place: Place, header: Header | None, labels: Header | None) -> bool:
    if header is None or (labels is None and place.reader.reads_labels):
        return True
    if not (header.ends and (labels is None or labels.ends)):
        return True
    stated = [(labels.width, labels.height)] if labels else []
    if place.width and place.height:
        stated.append((place.width, place.height))
    return bool(stated) and (header.turned or {*stated} != {(header.width, header.height)})


def _read(
    found: Survey, places: list[Place], suspects: list[Place], extent: Extent, progress: Progress
) -> None:
    statistics = found.statistics
    chosen = places if extent.everything else places[: extent.sample or SAMPLE]
    limited = extent.sample is None and not extent.everything
    end, seen, read = time.monotonic() + _SECONDS_READING, [], set()
    for place in chosen:
        if limited and time.monotonic() > end:
            break
        sample = place.reader.read(place.index)
        read.add((id(place.reader), place.index))
        if sample.error is not None:
            statistics.broken.append((str(place.image), sample.error))
        else:
            seen.append((place, _count(found, place.reader, sample)))
        statistics.read += 1
        progress('images', statistics.read, len(chosen))
    statistics.complete = statistics.read == statistics.images
    unread = [place for place in suspects if (id(place.reader), place.index) not in read]
    end, errors = time.monotonic() + _SECONDS_HEADERS, []
    for place in unread[:_MOST_SUSPECTS]:
        if limited and time.monotonic() > end:
            break
        errors.append((place.image, place.reader.read(place.index).error))
    bad = [(str(path), error) for path, error in errors if error is not None]
    statistics.broken += bad
    if bad and len(bad) == len(errors):
        statistics.more_broken = len(unread) - len(errors)
    found.shown = _varied(seen)


def _count(found: Survey, reader: SampleReader, sample: Sample) -> set[int]:
    """Count a sample; returns the classes in it."""
    statistics, labels = found.statistics, sample.labels
    image, classes = sample.image, set()
    if image is not None:
        channels = 1 if image.ndim == 2 else image.shape[2]
        plural = '' if channels == 1 else 's'
        statistics.loaded[f'{channels} channel{plural}, {image.dtype}'] += 1
        digest = pixel_digest(image)
        if digest is not None:
            found.pixels[digest] = str(sample.info.get('img_path'))
    if labels is not None:
        present = statistics.labels.add(labels, sample.loaded)
        statistics.labels.chosen |= bool(sample.info.get('label_map'))
        classes |= {*present.tolist()} & {*range(len(statistics.classes))}
        if reader.known is not None:
            statistics.labels.ignored |= reader.known.ignored
            statistics.labels.number = max(statistics.labels.number, reader.known.number)
            strange = [
                label
                for label in present.tolist()
                if label >= reader.known.number and label not in reader.known.ignored
            ]
            _add_strange(statistics, reader, sample, strange)
    return classes | {item.get('bbox_label') for item in sample.info.get('instances') or ()}


def _add_strange(
    statistics: Statistics, reader: SampleReader, sample: Sample, strange: list[int]
) -> None:
    if not strange:
        return
    labels = statistics.labels
    labels.strange.update(strange)
    labels.strange_files.append(str(sample.info.get('seg_map_path')))
    if labels.explained is None:
        labels.explained = reader.explain_labels(sample.info)


def _varied(seen: list[tuple[Place, set[int]]]) -> list[tuple[SampleReader, int]]:
    """Some samples that together show as many classes as possible."""
    chosen, shown = [], set()
    rest = list(seen)
    while rest and len(chosen) < _SHOWN:
        best = max(range(len(rest)), key=lambda index: len(rest[index][1] - shown))
        place, classes = rest.pop(best)
        shown |= classes
        chosen.append((place.reader, place.index))
    return chosen


def _crop(dataset: Any) -> tuple[int, int] | None:
    for item in (step for part in (dataset, *leaves(dataset)) for step in transforms(part)):
        size = getattr(item, 'crop_size', None)
        if (
            isinstance(size, (list, tuple))
            and len(size) == 2
            and all(isinstance(side, int) for side in size)
        ):
            of_mmdet = type(item).__module__.startswith('mmdet.')
            return (size[1], size[0]) if of_mmdet else (size[0], size[1])
    return None


def _is_local(place: Place) -> bool:
    if '://' in str(place.image):
        return False
    steps = [getattr(step, 'loader', step) for step in place.reader.steps]
    backends = [getattr(step, 'backend_args', None) or {} for step in steps]
    return all(item.get('backend', 'local') == 'local' for item in backends)


def read_opaque(dataset: Any, extent: Extent) -> str | None:
    """Take some samples of a data set that says nothing of its files; returns what fails."""
    number = len(dataset)
    count = min(number, extent.sample or 8)
    for step in range(count):
        index = step * number // count
        try:
            dataset[index]
        except Exception as error:  # whatever it raises, a run would end
            return f'sample {index} cannot be read: {short(error)}'
    return None
