"""Heads that look at boxes: classes and offsets, stage by stage, and masks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from .detector_boxes import BoxCoder, Size
from .detector_operators import Operators
from .roi_align import RoIAlignSettings


class RoIFeatures:
    """What mmdet's ``SingleRoIExtractor`` cuts out: each box from the level that fits its size.

    Args:
        extractor: It, with mmcv's RoIAlign for each level.
    """

    def __init__(self, extractor: nn.Module) -> None:
        layer = extractor.roi_layers[0]
        self.finest = extractor.finest_scale
        self.settings = RoIAlignSettings(
            size=tuple(layer.output_size),
            strides=tuple(extractor.featmap_strides),
            sampling_ratio=layer.sampling_ratio,
            aligned=layer.aligned,
        )

    def __call__(self, features: Sequence[Tensor], boxes: Tensor, operators: Operators) -> Tensor:
        """Cut out ``[N, C, height, width]`` float32 for boxes ``[N, 4]``."""
        features = [map_.float() for map_ in features[: len(self.settings.strides)]]
        return operators.pyramid_align(features, boxes, self._levels(boxes), self.settings)

    def _levels(self, boxes: Tensor) -> Tensor:
        """Level 0 below twice the finest scale, and one more with each doubling."""
        width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(-1)
        scale = (width * height).sqrt() / self.finest + 1e-6
        bounds = 2.0 ** torch.arange(1, len(self.settings.strides), device=boxes.device)
        return (scale.unsqueeze(-1) >= bounds).sum(-1)


class BoxStage(nn.Module):
    """One box head of mmdet with what it reads."""

    def __init__(self, head: nn.Module, extractor: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.read = RoIFeatures(extractor)
        self.coder = BoxCoder.of(head.bbox_coder)

    def forward(
        self, features: Sequence[Tensor], boxes: Tensor, operators: Operators
    ) -> tuple[Tensor, Tensor]:
        """Logits ``[N, K + 1]``, of the background at last, and offsets ``[N, 1 or K, 4]``."""
        cut = self.read(features, boxes, operators).to(features[0].dtype)
        logits, offsets = self.head(cut)
        return logits.float(), offsets.float().unflatten(-1, (-1, 4))

    def moved(
        self, boxes: Tensor, offsets: Tensor, rows: Tensor, labels: Tensor, size: Size
    ) -> Tensor:
        """The boxes of some rows, each moved as its class says."""
        kind = torch.zeros_like(labels) if self.head.reg_class_agnostic else labels
        return self.coder.decode(boxes.index_select(0, rows), offsets[rows, kind], size)


class BoxStages(nn.Module):
    """The box heads of a detector of two stages, or of a cascade.

    Args:
        heads: Box heads of mmdet: each one looks at the boxes of the one before.
        extractors: Of each head.
        floor: Only scores above it count.
    """

    def __init__(
        self, heads: Sequence[nn.Module], extractors: Sequence[nn.Module], floor: float
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(map(BoxStage, heads, extractors))
        self.floor = floor

    def forward(
        self, features: Sequence[Tensor], boxes: Tensor, size: Size, operators: Operators
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Classify and move boxes.

        Args:
            features: ``[1, C, H, W]`` of each level.
            boxes: ``[N, 4]``.
            size: ``(H, W)`` of the image without padding.
            operators: Their form.

        Returns:
            ``[M, 4]`` boxes, ``[M]`` scores and ``[M]`` labels: one row for each box and class
            whose score is above the floor.
        """
        every = []
        *first, last = self.stages
        for stage in first:
            logits, offsets = stage(features, boxes, operators)
            every.append(logits)
            rows = torch.arange(boxes.shape[0], device=boxes.device)
            boxes = stage.moved(boxes, offsets, rows, logits[:, :-1].argmax(-1), size)
        logits, offsets = last(features, boxes, operators)
        logits = reduce(torch.add, [*every, logits]) / float(len(self.stages))
        scores = logits.softmax(-1)[:, :-1]
        rows, labels = torch.where(scores > self.floor)
        return last.moved(boxes, offsets, rows, labels, size), scores[rows, labels], labels


class MaskStages(nn.Module):
    """The mask heads of a detector, whose probabilities are averaged.

    Args:
        heads: Mask heads of mmdet.
        extractors: Of each head.
    """

    def __init__(self, heads: Sequence[nn.Module], extractors: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.readers = [RoIFeatures(extractor) for extractor in extractors]

    def forward(
        self, features: Sequence[Tensor], boxes: Tensor, labels: Tensor, operators: Operators
    ) -> Tensor:
        """Probabilities ``[N, h, w]`` of each box's own class."""
        every = []
        for head, read in zip(self.heads, self.readers, strict=True):
            logits = head(read(features, boxes, operators).to(features[0].dtype)).float()
            kind = torch.zeros_like(labels) if head.class_agnostic else labels
            kind = kind.view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[-2:])
            every.append(logits.gather(1, kind).squeeze(1).sigmoid())
        return every[0] if len(every) == 1 else torch.stack(every).mean(0)
