"""Which part of a model a layer belongs to, by its name: a stage, the neck, a head."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WRAPPER = re.compile(r'^(?:module\.|_orig_mod\.)+')
_BACKBONE = 'backbone.'
_SPLIT = 'roi_head.'  # its heads are parts of their own
# layer1 (ResNet), stage2 (HRNet), stages.0 (ConvNeXt, Swin), layers.0 (ViT), features.0 (VGG)
_STAGE = re.compile(r'^(?:(?:layer|stage|block)\d+|(?:stages|layers|blocks|features)\.\d+)(?=\.)')

ELSEWHERE = 'elsewhere'
REST_OF_BACKBONE = 'backbone, rest'


def part_of_layer(name: str) -> str:
    """The part that a layer of a segmentor, a detector, a classifier or a backbone belongs to.

    Args:
        name: Of the layer, as in ``named_modules()``; ``module.`` before it does not matter.

    Returns:
        ``'backbone.layer1'``, ``'neck'``, ``'roi_head.bbox_head'``, ``'layer1'`` in a backbone
        alone; ``'backbone, rest'`` for the stem and what stands between the stages;
        ``'elsewhere'`` for a layer that a number names alone.
    """
    name = _WRAPPER.sub('', name)
    prefix = _BACKBONE if name.startswith(_BACKBONE) else ''
    stage = _STAGE.match(name.removeprefix(prefix))
    if stage:
        return prefix + stage[0]
    if prefix:
        return REST_OF_BACKBONE
    if name.startswith(_SPLIT):
        return '.'.join(name.split('.')[:2])
    first = name.partition('.')[0]
    return ELSEWHERE if first.isdecimal() or not first else first


def by_part(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of layers by the part that they belong to; parts in the order of their first layers."""
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(part_of_layer(name), []).append(name)
    return parts
