"""Filling in the steps of pipelines: sizes that follow from ``own_data``, and label values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmsw.component_name import component_name
from mmsw.datasets.label_values import BINARY_MASKS

from .settings import OwnData

_STEPS = 7  # sizes that an image may be enlarged to, where each has its own size


def filled_steps(steps: Iterable[Any], own: OwnData) -> list[Any]:
    """A pipeline in which ``None`` has become what ``own_data`` says.

    What a config gives itself stays as it is.

    Args:
        steps: Configs of transforms; those inside of others are filled in too.
        own: The settings.

    Returns:
        New steps.
    """
    found: list[Any] = []
    for step in steps:
        if not isinstance(step, dict):
            found.append(step)
            continue
        step, kind = dict(step), component_name(step.get('type'))
        if kind == 'TestTimeAug':
            step['transforms'] = _alternatives(step['transforms'], own)
        elif isinstance(step.get('transforms'), (list, tuple)):
            step['transforms'] = [
                filled_steps(item if isinstance(item, (list, tuple)) else [item], own)
                for item in step['transforms']
            ]
        found += _filled(step, kind, own)
    return found


def fill_pipelines(part: Any, own: OwnData) -> None:
    """Fill in every pipeline of a loader, those of data sets in wrappers too, in place."""
    if isinstance(part, dict):
        for key, item in part.items():
            if key == 'pipeline' and isinstance(item, (list, tuple)):
                part[key] = filled_steps(item, own)
            else:
                fill_pipelines(item, own)
    elif isinstance(part, (list, tuple)):
        for item in part:
            fill_pipelines(item, own)


def without_truth(steps: Iterable[Any]) -> list[Any]:
    """A pipeline of a segmentation for images without label maps."""
    unwanted = ('LoadAnnotations', 'MapLabelValues')
    return [
        step
        for step in steps
        if not (isinstance(step, dict) and component_name(step.get('type')) in unwanted)
    ]


def _alternatives(stages: Iterable[Any], own: OwnData) -> list[list[Any]]:
    """Stages of ``TestTimeAug``: every list holds alternatives of one step."""
    found = []
    for stage in stages:
        steps = [filled for step in stage for filled in _filled(dict(step), _kind(step), own)]
        following = [step for step in steps if _kind(step) == 'MapLabelValues']
        steps = [step for step in steps if _kind(step) != 'MapLabelValues']
        if steps:
            found.append(steps)
        if following:
            found.append(following)
    return found


def _kind(step: dict) -> str:
    return component_name(step.get('type'))


def _filled(step: dict, kind: str, own: OwnData) -> list[dict]:
    """A step with its sizes; nothing if it is not wanted, and what follows it."""
    if kind == 'RandomFlip' and not own.flip and step.get('prob') != 0:
        return []
    if kind == 'RandomCrop' and step.get('crop_size', 0) is None:
        height, width = own.size
        step['crop_size'] = (height, width) if own.task == 'segmentation' else (width, height)
    if kind == 'RandomResize' and step.get('ratio_range', 0) is None:
        step['ratio_range'] = own.scale_range
    if own.task == 'detection':
        if kind in ('Resize', 'RandomResize') and step.get('scale', 0) is None:
            step['scale'] = own.size[::-1]
        if kind == 'LoadAnnotations' and step.get('with_mask', 0) is None:
            step['with_mask'] = own.masks
        return [step]
    if kind == 'RandomResize' and step.get('scale', 0) is None:
        return [_random_resize(step, own)]
    if kind == 'Resize' and step.get('scale', 0) is None:
        return _resize(step, own)
    if kind == 'LoadAnnotations' and (mapping := label_mapping(own)):
        return [step, mapping]
    return [step]


def _random_resize(step: dict, own: OwnData) -> dict:
    if own.image_scale is not None:
        return {**step, 'scale': own.image_scale}
    low, high = step.get('ratio_range') or (1.0, 1.0)
    number = _STEPS if low < high else 1
    factors = [round(low + (high - low) * index / (number - 1 or 1), 3) for index in range(number)]
    return dict(
        type='RandomChoice',
        transforms=[
            [dict(type='Resize', scale_factor=factor, keep_ratio=True)] for factor in factors
        ],
    )


def _resize(step: dict, own: OwnData) -> list[dict]:
    """A step to the size that images are wanted in, times its ``scale_factor``."""
    if own.image_scale is not None:
        factor = step.pop('scale_factor', 1.0)
        return [{**step, 'scale': tuple(round(side * factor) for side in own.image_scale)}]
    del step['scale']
    return [step] if 'scale_factor' in step else []


def label_mapping(own: OwnData) -> dict | None:
    """The step that gives label values of the files their meaning; ``None`` if none is needed."""
    mapping = dict(BINARY_MASKS) if own.binary_masks else {}
    # as loaded: where label 0 is no class, 1 has become 0, and 0 is 255
    shift = 1 if own.reduce_zero_label else 0
    ignored = tuple(
        value - shift for value in own.ignore if value not in mapping and shift <= value < 255
    )
    if not mapping and not ignored:
        return None
    return dict(type='MapLabelValues', mapping=mapping, ignore=ignored)
