"""From the outputs of an exported program to the data samples of the toolboxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor

from mmsw.deploy.export.pasting import paste_masks


def add_classes(
    sample: BaseDataElement, logits: Tensor, size: tuple[int, int], settings: dict[str, Any]
) -> None:
    """Put the classes of the pixels of an image into its data sample, as mmseg does.

    Args:
        sample: With ``ori_shape``; gets ``seg_logits`` and ``pred_sem_seg``.
        logits: ``[K, H, W]`` of the program.
        size: Height and width without the border.
        settings: Of the program: ``align_corners``, and ``threshold`` for one channel.
    """
    logits = logits[None, :, : size[0], : size[1]]
    corners = settings['align_corners']
    logits = F.interpolate(logits, tuple(sample.ori_shape), None, 'bilinear', corners)[0]
    if len(logits) > 1:
        found = logits.argmax(0, keepdim=True)
    else:
        logits = logits.sigmoid()
        found = (logits > settings['threshold']).to(logits)
    sample.set_data({'seg_logits': PixelData(data=logits), 'pred_sem_seg': PixelData(data=found)})


def add_objects(
    sample: BaseDataElement,
    found: dict[str, Tensor],
    size: tuple[int, int],
    settings: dict[str, Any],
) -> None:
    """Put the objects of an image into its data sample, as mmdet does.

    Args:
        sample: With ``ori_shape``, and ``scale_factor`` if it was resized; gets ``pred_instances``.
        found: Outputs of the program: ``boxes`` in pixels of its input, ``scores``, ``labels``,
            and ``masks`` where it has them.
        size: Height and width without the border.
        settings: Of the program: ``mask_threshold`` where it has masks.
    """
    found = _inside(found, size)
    scale = sample.metainfo.get('scale_factor', (1.0, 1.0))
    boxes, masks = found['boxes'], found.get('masks')
    if masks is None:  # mmdet multiplies these and divides those: other roundings
        boxes = boxes * _four([1 / factor for factor in scale])
    else:
        boxes = boxes / _four(scale)
    objects = InstanceData(bboxes=boxes, scores=found['scores'], labels=found['labels'])
    if masks is not None:
        image = tuple(sample.ori_shape[:2])
        objects.masks = paste_masks(masks, boxes, image, settings['mask_threshold'])
    sample.pred_instances = objects


def _four(scale: Sequence[float]) -> Tensor:
    return torch.tensor(scale, dtype=torch.float32).repeat(1, 2)


def _inside(found: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """Objects without what lies in the border alone; boxes end where the image does."""
    height, width = size
    boxes = found['boxes']
    clipped = boxes.clamp(min=0)
    clipped[:, 0::2].clamp_(max=width)
    clipped[:, 1::2].clamp_(max=height)
    if torch.equal(clipped, boxes):
        return found
    kept = (clipped[:, 0] < clipped[:, 2]) & (clipped[:, 1] < clipped[:, 3])
    return {name: value[kept] for name, value in {**found, 'boxes': clipped}.items()}
