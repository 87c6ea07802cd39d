"""What is wrong with label maps, judged by their figures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmsw.datasets.label_maps import KnownClasses
from mmsw.wording import listed

from ..checks.label_maps import problem_of_labels
from .finding import ERROR, WARNING, Finding
from .statistics import Statistics

IGNORED_PIXELS, ONE_CLASS = 'ignored pixels', 'one class'  # kinds of findings
IMBALANCE = 100  # times as many pixels or objects
_MANY = 10  # labels that are no class: then they are hardly indices
_BOUNDS = 0.1, 10.0  # of the weights
_SHOWN_WEIGHTS = 30
_UNREDUCED = (
    "and reduction='none', since mmsegmentation's own mean over the pixels fails with weights "
    'where a pixel is ignored'
)


def label_findings(statistics: Statistics, known: KnownClasses | None) -> Iterator[Finding]:
    """Judge the label maps of a loader.

    Args:
        statistics: Of the loader.
        known: Its classes and what is ignored; ``None`` where labels may mean anything.

    Yields:
        What is wrong.
    """
    labels, name = statistics.labels, statistics.name
    if labels.strange:
        values = sorted(labels.strange)
        counts = listed([f'{value} in {labels.strange[value]}' for value in values])
        message = (
            f'{len(labels.strange_files)} of the {labels.maps} label maps that were read hold '
            f'labels that are no class ({counts})'
        )
        details = [labels.explained] if labels.explained else []
        files = labels.strange_files[:100]
        yield Finding(ERROR, name, 'label values', message, _cure_of(values), files, details)
    if not labels.maps or known is None or not statistics.classes:
        return
    ignored = [label for label in known.ignored if 0 <= label <= 255]
    present = [
        index
        for index in np.flatnonzero(labels.pixels[: known.number]).tolist()
        if index not in ignored
    ]
    problem = problem_of_labels(labels.loaded, statistics.classes, known, labels.chosen)
    where = f'in the {labels.maps} label maps that were read'
    if problem:
        level = ERROR if len(present) <= 1 and known.number > 1 else WARNING
        yield Finding(level, name, IGNORED_PIXELS, f'{where}, {problem}')
    elif len(present) == 1 and known.number > 1 and not labels.strange and not labels.chosen:
        whole = statistics.complete
        level = ERROR if name.startswith('train') and whole else WARNING
        message = f'{where}, every pixel is of class {_named(statistics, present[0])}'
        effect = ': nothing else can be learned' if whole else ' (try --all)'
        yield Finding(level, name, ONE_CLASS, message + effect)


def _cure_of(values: list[int]) -> str:
    """What to do about several label values that are no class; the loader speaks of the first."""
    if len(values) > _MANY:
        return (
            'So many look like grey levels of a coloured label map, or like one that was saved as '
            'JPEG: save the index of the class for every pixel, as PNG'
        )
    void = ', '.join(map(str, values))
    return f'To leave out all of them: ignore=({void})' if len(values) > 1 else ''


def imbalance(statistics: Statistics) -> Iterator[Finding]:
    """Warn of training classes with very few pixels or objects, and name weights."""
    if statistics.labels.maps and not statistics.labels.judged:
        return
    if statistics.labels.maps:
        counts, what = statistics.labels.pixels[: len(statistics.classes)].tolist(), 'pixels'
    else:
        counts = [statistics.objects.per_class[i] for i in range(len(statistics.classes))]
        what = 'objects' if statistics.objects.sizes else 'images'
    some = [index for index, count in enumerate(counts) if count]
    if len(some) < 2:
        return
    least, most = (pick(some, key=counts.__getitem__) for pick in (min, max))
    ratio = counts[most] / counts[least]
    if ratio < IMBALANCE:
        return
    message = (
        f'{_named(statistics, most)} has {ratio:,.0f} times as many {what} as '
        f'{_named(statistics, least)}'
    )
    weights = class_weights(counts)
    if what != 'pixels':
        cure = 'ClassBalancedDataset of mmdet or mmpretrain shows rare classes more often'
    elif len(weights) > _SHOWN_WEIGHTS:
        cure = (
            'Weights for class_weight in loss_decode are in the JSON file that --out writes. '
            f'Set them there, {_UNREDUCED}'
        )
    else:
        cure = f'If rare classes matter, set in loss_decode class_weight={weights}, {_UNREDUCED}'
    yield Finding(WARNING, statistics.name, 'imbalance', message, cure)


def class_weights(counts: list[int]) -> list[float]:
    """Weights of classes: one over the root of the number of pixels, with a mean of 1.

    Args:
        counts: Pixels per class.

    Returns:
        From 0.1 to 10; 1 for a class without a pixel.
    """
    roots = np.sqrt(np.asarray(counts, dtype=np.float64))
    some = roots > 0
    if not some.any():
        return [1.0] * len(counts)
    weights = np.ones(len(counts))
    weights[some] = 1 / roots[some]
    weights[some] /= weights[some].mean()
    return np.clip(weights, *_BOUNDS).round(2).tolist()


def _named(statistics: Statistics, index: int) -> str:
    names = statistics.classes
    return names[index] if index < len(names) else f'class {index}'
