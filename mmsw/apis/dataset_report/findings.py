"""What the figures of the data loaders mean for a training."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from mmsw.wording import listed

from .coco_left_out import NO_AREA, NO_IMAGE, OTHER_CLASS, OUTSIDE
from .duplicates import same_files
from .finding import ERROR, WARNING, Finding
from .label_findings import imbalance, label_findings
from .statistics import Statistics
from .survey import Survey

_MOST_FILES = 100  # that a finding names
_COMMON = 0.01  # of the images of a loader that are in another one
_FAR_BELOW = 0.5  # of the crop
_MANY = 0.25
_SKIPPED = 'skipped files'


def findings_of(survey: Survey, without_missing: bool = False) -> Iterator[Finding]:
    """Judge one loader.

    Args:
        survey: Of the loader.
        without_missing: Leave out files that do not exist, of which another check has told.

    Yields:
        What is wrong, or may be.
    """
    statistics = survey.statistics
    yield from _broken(statistics, without_missing)
    known = next((item.known for item in survey.readers if item.known is not None), None)
    yield from label_findings(statistics, known)
    yield from _objects(statistics)
    if statistics.name.startswith('train'):
        yield from imbalance(statistics)
        yield from _small_images(statistics)
    depths = [item for item in statistics.headers if item.mode.startswith(('I', 'F'))]
    if depths and any(key.endswith('uint8') for key in statistics.loaded):
        yield Finding(
            WARNING,
            statistics.name,
            'depth',
            f'images of more than 8 bits per channel, which are loaded with 8: {len(depths)}',
            "color_type='unchanged' in the image loader keeps them",
        )


def _broken(statistics: Statistics, without_missing: bool) -> Iterator[Finding]:
    kinds: dict[str, list[tuple[str, str]]] = {
        'broken files': [],
        'missing files': [],
        _SKIPPED: [],
    }
    for path, problem in sorted(statistics.broken):
        missing = 'missing files' if 'does not exist' in problem else 'broken files'
        kinds[_SKIPPED if ' is skipped by ' in problem else missing].append((path, problem))
    for kind, found in kinds.items():
        if not found or (kind == 'missing files' and without_missing):
            continue
        count = f'{len(found)} image{"s" * (len(found) > 1)} cannot be used'
        if statistics.more_broken and len(found) == len(statistics.broken):
            count += f', and {statistics.more_broken} more look like them'
        yield Finding(
            WARNING if kind == _SKIPPED else ERROR,
            statistics.name,
            kind,
            count,
            files=[path for path, _ in found[:_MOST_FILES]],
            details=[problem for _, problem in found[:_MOST_FILES]],
        )


def _objects(statistics: Statistics) -> Iterator[Finding]:
    name, objects, dropped = statistics.name, statistics.objects, statistics.dropped
    for kind, files, cure in (
        ('boxes without area', objects.empty_boxes, 'remove the boxes'),
        ('boxes that stand out of their image', objects.outside, 'cut the boxes off at the border'),
        ('polygons of less than three points', objects.polygons, 'these masks are left out'),
    ):
        if files:
            yield Finding(
                WARNING,
                name,
                kind,
                f'images with {kind}: {len(files)} ({listed(files, 2)}); {cure}',
                files=files[:_MOST_FILES],
            )
    for kind in (NO_AREA, OUTSIDE, NO_IMAGE):
        if dropped[kind]:
            message = f'{kind}, which are left out of the annotation file: {dropped[kind]}'
            yield Finding(WARNING, name, kind, message)
    if dropped[OTHER_CLASS]:
        yield Finding(
            WARNING,
            name,
            OTHER_CLASS,
            f'{OTHER_CLASS} than the classes of the config, which are left out: '
            f'{dropped[OTHER_CLASS]}',
            'Name all that are to be learned (own_data.classes, metainfo.classes)',
        )
    if objects.images and objects.empty > objects.images / 2:
        yield Finding(
            WARNING,
            name,
            'images without an object',
            f'images without an object: {objects.empty} of {objects.images}',
        )


def _small_images(statistics: Statistics) -> Iterator[Finding]:
    if not (statistics.crop and statistics.headers):
        return
    height, width = statistics.crop
    small = sum(
        item.height < height * _FAR_BELOW and item.width < width * _FAR_BELOW
        for item in statistics.headers
    )
    if small > _MANY * len(statistics.headers):
        middle = [
            int(np.median([getattr(item, side) for item in statistics.headers]))
            for side in ('width', 'height')
        ]
        yield Finding(
            WARNING,
            statistics.name,
            'small images',
            f'{small} of {len(statistics.headers)} images are less than half as wide and high as '
            f'the training crop ({width} x {height}); the median is {middle[0]} x {middle[1]}. '
            'They are enlarged or padded',
            'Take a smaller crop (--cfg-options crop_size=...)',
        )


def absent_classes(surveys: Sequence[Survey], told: Collection[str] = ()) -> Iterator[Finding]:
    """Name classes without a pixel or object in training, or in validation.

    It is an error where nothing of a class can be learned, but it is in the validation data.

    Args:
        surveys: Of all loaders.
        told: Loaders of which it has been told in other words.

    Yields:
        One finding per loader.
    """
    tested = {
        name
        for item in surveys
        if not item.statistics.name.startswith('train')
        for name, count in zip(*_counts(item.statistics), strict=True)
        if count
    }
    for item in surveys:
        statistics = item.statistics
        names, counts = _counts(statistics)
        absent = [name for name, count in zip(names, counts, strict=True) if not count]
        labels = statistics.labels
        if statistics.name in told or labels.chosen or (labels.maps and not labels.judged):
            continue
        if not absent or not any(counts):
            continue
        pixels = bool(statistics.labels.maps)
        whole = statistics.complete if pixels else statistics.objects_complete
        train = statistics.name.startswith('train')
        level = ERROR if train and whole and {*absent} & tested else WARNING
        what = 'pixel' if pixels else 'object' if statistics.objects.sizes else 'image'
        one = len(absent) == 1
        extent, effect = '', f'{"it" if one else "they"} cannot be learned'
        if not train:
            effect = f'{"its score is" if one else "their scores are"} undefined'
        if not whole:
            extent = f' in the {statistics.read} images that were read (try --all)'
            effect = f'if that is so in all, {effect}'
        plural = 'class has' if one else 'classes have'
        message = f'{len(absent)} {plural} no {what}{extent}: {listed(absent, 8)}; {effect}'
        if train and {*absent} & tested:
            message += f', but the validation or test data have {"it" if one else "them"}'
        yield Finding(level, statistics.name, 'absent classes', message)


def _counts(statistics: Statistics) -> tuple[list[str], list[int]]:
    names = statistics.classes
    if statistics.labels.maps:
        return names[:256], statistics.labels.pixels[: len(names)].tolist()
    if statistics.objects.images:
        return names, [statistics.objects.per_class[index] for index in range(len(names))]
    return [], []


def duplicates(train: Survey, other: Survey) -> Iterator[Finding]:
    """Tell of images that stand in the training data and in those that scores are measured on."""
    pairs = same_files(train.paths, other.paths)
    found = {second for _, second in pairs}
    pixels = [
        (train.pixels[digest], path)
        for digest, path in other.pixels.items()
        if digest in train.pixels and path not in found
    ]
    for pairs_found, how, total in (
        (pairs, 'the same files', len(other.paths)),
        (pixels, 'the same pixels in other files', len(other.pixels)),
    ):
        if not pairs_found:
            continue
        level = ERROR if len(pairs_found) >= _COMMON * total else WARNING
        first, second = pairs_found[0]
        example = second if os.path.abspath(first) == os.path.abspath(second) else None
        yield Finding(
            level,
            other.statistics.name,
            'duplicates',
            f'{len(pairs_found)} of {total} images are among those of train_dataloader ({how}: '
            f'{example or f"{first} and {second}"}): scores on them say nothing about new images',
            'Take them out of one of the two',
            [path for _, path in pairs_found[:_MOST_FILES]],
        )
