"""Giving every head of a model the number of classes of own data."""

from __future__ import annotations

from typing import Any

_SEGMENTATION_HEADS = ('decode_head', 'auxiliary_head')
_WITHOUT_CLASSES = ('rpn_head', 'loss_', 'semantic_head')  # proposals, losses, stuff


def set_number_of_classes(model: dict, task: str, number: int) -> None:
    """Write ``num_classes`` into the heads of the config of a model, in place.

    Heads in lists (cascades, several auxiliary heads) and in other heads are reached. Those that
    propose regions without a class are left alone.

    Args:
        model: Part of a config.
        task: ``'segmentation'`` or ``'detection'``.
        number: Of classes.
    """
    for key, value in model.items():
        is_head = key in _SEGMENTATION_HEADS if task == 'segmentation' else _is_detection_head(key)
        if is_head:
            _set(value, number)
        elif key in ('segmentor', 'detector', 'model') and isinstance(value, dict):  # wrapped
            set_number_of_classes(value, task, number)


def _is_detection_head(key: str) -> bool:
    return key.endswith('_head') and not key.startswith(_WITHOUT_CLASSES)


def _set(value: Any, number: int) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _set(item, number)
    elif isinstance(value, dict):
        for key in ('num_classes', 'num_things_classes'):
            if key in value:
                _set_weights(value, value[key] + value.get('num_stuff_classes', 0), number)
                value[key] = number
        if 'num_things_classes' in value:  # only what can be counted
            value['num_stuff_classes'] = 0
        for key, item in value.items():
            if _is_detection_head(key):
                _set(item, number)


def _set_weights(head: dict, before: int, number: int) -> None:
    """Equal weights of the classes, and one for no class, as heads of queries have them."""
    losses = [loss for key, loss in head.items() if key.startswith('loss_')]
    for loss in losses:
        for item in loss if isinstance(loss, (list, tuple)) else [loss]:
            weights = item.get('class_weight') if isinstance(item, dict) else None
            of_all = isinstance(weights, (list, tuple)) and len(weights) == before + 1
            if of_all and len(set(weights[:-1])) == 1:
                item['class_weight'] = [*[weights[0]] * number, weights[-1]]


def drop_mask_heads(model: dict) -> None:
    """Let a detector with masks learn boxes alone, in place."""
    roi_head = model.get('roi_head')
    if isinstance(roi_head, dict):
        for key in ('mask_head', 'mask_roi_extractor'):
            if key in roi_head:
                roi_head[key] = None
