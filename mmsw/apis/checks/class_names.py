"""Whether the classes of a data set are a list of different names, and fit its palette."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from mmsw.errors import UsageError
from mmsw.wording import listed

from .built_datasets import leaves


def check_class_names(dataset: Any, name: str) -> None:
    """Refuse one text in place of a list, and the same name twice.

    Args:
        dataset: A built data set.
        name: Of its loader, for the message.

    Raises:
        UsageError: If there is such a problem.
    """
    for leaf in leaves(dataset):
        metainfo = getattr(leaf, 'metainfo', None)
        classes = metainfo.get('classes') if isinstance(metainfo, dict) else None
        problem = _one_text(classes) or (_is_of_toolbox(leaf) and _twice(classes))
        if problem:
            raise UsageError(f'{name}.dataset: {problem}')


def explain_metainfo(dataset: dict, error: Exception) -> str | None:
    """What in ``metainfo`` of a data set's config made building fail.

    Args:
        dataset: The config.
        error: Of the building.

    Returns:
        The problem and the cure; ``None`` if it is not the reason.
    """
    metainfo = dataset.get('metainfo')
    metainfo = metainfo if isinstance(metainfo, dict) else {}
    classes, palette = metainfo.get('classes'), metainfo.get('palette')
    if not (isinstance(classes, str) and ('://' in classes or os.path.isfile(classes))):
        problem = _one_text(classes)
        if problem:
            return problem
    if 'palette does not match' in str(error) and classes and palette:
        return (
            f'metainfo.palette has {len(palette)} colours, but metainfo.classes {len(classes)} '
            'names: list one colour [R, G, B] per class, or leave palette out'
        )
    if 'is not a subset of classes' in str(error) and classes:
        return (
            f'metainfo.classes ({listed(classes)}) has names that {dataset.get("type")} does not '
            "have: for classes of your own take type='BaseSegDataset'"
        )
    return None


def _one_text(classes: Any) -> str | None:
    if not isinstance(classes, str):
        return None
    return (
        f'metainfo.classes is the text {classes!r}, of which every letter would be a class: '
        f'write ({classes!r},) with a comma, or [{classes!r}]'
    )


def _twice(classes: Any) -> str | None:
    if not isinstance(classes, (list, tuple)):
        return None
    twice = [str(item) for item, number in Counter(map(str, classes)).items() if number > 1]
    if not twice:
        return None
    return f'metainfo.classes names {listed(twice)} more than once: every class needs its own name'


def _is_of_toolbox(dataset: Any) -> bool:
    """Whether it is one of mmseg or mmdet; mmpretrain's ImageNet has a crane that flies and one
    that lifts."""
    return any(kind.__module__.startswith(('mmseg.', 'mmdet.')) for kind in type(dataset).__mro__)
