"""Whether the heads of a model have as many classes as the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from mmsw.component_name import names_of_bases
from mmsw.errors import UsageError
from mmsw.wording import listed

from .built_datasets import class_names, leaves

_SEGMENTATION_HEADS = 'mmseg.models.decode_heads.'
_DETECTION_HEADS = (
    'mmdet.models.dense_heads.',
    'mmdet.models.roi_heads.bbox_heads.',
    'mmdet.models.roi_heads.mask_heads.',
)
_PANOPTIC_HEADS = 'mmdet.models.seg_heads.'
# Heads whose classes are others than those of the data: edges, depths, stuff, words, proposals.
_OTHER_CLASSES = {
    'STDCHead',
    'VPDDepthHead',
    'FusedSemanticHead',
    'ATSSVLFusionHead',
    'GroundingDINOHead',
    'RPNHead',
    'GARPNHead',
    'CascadeRPNHead',
    'StageCascadeRPNHead',
}
# Data sets that name more classes than are learned: trackers follow pedestrians alone.
_OTHER_DATASETS = {'MOTChallengeDataset'}


def check_heads(model: nn.Module, dataset: Any, name: str) -> None:
    """Refuse heads of mmseg and mmdet whose number of classes is not the one of the data.

    Left alone are heads of others, also derived ones, proposals (RPN), masks without class, heads
    for other classes than those of the data set, and data sets whose classes are texts to be
    understood.

    Args:
        model: A built model.
        dataset: A built data set.
        name: Of its loader, for the message.

    Raises:
        UsageError: If there are such heads; one message for all.
    """
    parts = list(leaves(dataset))
    classes = class_names(dataset)
    if not classes or any(getattr(part, 'return_classes', False) for part in parts):
        return
    if any(len(class_names(part) or classes) != len(classes) for part in parts):
        return
    if 'RPN' in names_of_bases(model) or any(
        names_of_bases(part) & _OTHER_DATASETS for part in parts
    ):
        return
    things = _things(dataset.metainfo, classes)
    wrong = [
        (key, number, wanted)
        for key, number, wanted in _head_sizes(model, len(classes), things)
        if number != wanted
    ]
    if not wrong:
        return
    found = [f'{key}={number}' for key, number, _ in wrong]
    cures = [f'{key}={wanted}' for key, _, wanted in wrong if '+' not in key]
    how = f' (--cfg-options {" ".join(cures)})' if len(cures) == len(wrong) else ''
    noun = 'class' if len(classes) == 1 else 'classes'
    raise UsageError(
        f'{name} has {len(classes)} {noun} ({listed(classes)}), but the model has '
        f'{" and ".join(found)}: give every head as many classes as the data{how}, or correct '
        'metainfo.classes of the data set'
    )


def _things(metainfo: dict, classes: list | tuple) -> int | None:
    """Number of classes that are countable; ``None`` if it is not known."""
    things = metainfo.get('thing_classes')
    if things is None:
        return len(classes)
    return len(things) if set(things) <= set(classes) else None  # else those of the type, stale


def _head_sizes(model: nn.Module, number: int, things: int | None) -> Iterator[tuple]:
    """Config key, number of classes and the right number of every known head."""
    for path, head in model.named_modules():
        size = getattr(head, 'num_classes', None)
        if not isinstance(size, int) or names_of_bases(head) & _OTHER_CLASSES:
            continue
        path = path.removeprefix('module.')  # of test-time augmentation
        where = type(head).__module__
        key = f'model.{path}.num_classes'
        if where.startswith(_SEGMENTATION_HEADS):
            if not (getattr(head, 'out_channels', None) == 1 and number <= 2):
                yield key, size, number
        elif where.startswith((*_DETECTION_HEADS, _PANOPTIC_HEADS)) and _has_things(head):
            key = f'model.{path}.num_things_classes + num_stuff_classes'
            yield key, head.num_things_classes + head.num_stuff_classes, number
        elif where.startswith(_DETECTION_HEADS) and not _without_class(path, head):
            yield key, size, size if things is None else things


def _has_things(head: nn.Module) -> bool:
    return {'num_things_classes', 'num_stuff_classes'} <= vars(head).keys()


def _without_class(path: str, head: nn.Module) -> bool:
    return 'rpn_head' in path.split('.') or bool(getattr(head, 'class_agnostic', False))
