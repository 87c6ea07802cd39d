"""What merging the results of windows asks of a model."""

from __future__ import annotations

from torch import nn


def class_threshold(model: nn.Module) -> float | None:
    """Logit of a segmentor of one channel above which a pixel is of class 1; ``None`` of others."""
    settings = getattr(model, 'window_settings', None)
    if settings is not None:  # a model that is an exported file
        return settings.get('threshold')
    head = getattr(model, 'decode_head', None)
    return head.threshold if getattr(head, 'out_channels', None) == 1 else None


def overlap_threshold(model: nn.Module) -> float:
    """IoU above which a detector drops the weaker of two boxes: of its own NMS, or 0.5."""
    settings = getattr(model, 'window_settings', None)
    if settings is None:
        settings = getattr(model, 'test_cfg', None) or {}
        settings = (settings.get('rcnn') or settings).get('nms') or {}
    return float(settings.get('iou_threshold', 0.5))
