"""Detectors of mmdet as programs: RetinaNet, Faster, Mask and Cascade R-CNN."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .detector_boxes import Suppression, detections, large_enough
from .detector_dense import AnchorScan
from .detector_operators import PLAIN, STANDARD, Operators
from .detector_parts import check_detector, listed
from .detector_rois import BoxStages, MaskStages
from .nms import ABSENT
from .onnx_translations import detector_translations
from .program import Program


def detector_program(model: nn.Module) -> Program:
    """The program of a detector of mmdet.

    Args:
        model: A RetinaNet, Faster R-CNN, Mask R-CNN or Cascade (Mask) R-CNN.

    Raises:
        UsageError: If the detector, a part of it or one of its settings has no program; names it.
    """
    check_detector(model)
    return (TwoStageProgram if hasattr(model, 'roi_head') else OneStageProgram)(model)


class DetectorProgram(Program):
    """A detector as a graph for one image: the parts that all have.

    Args:
        model: A detector that was checked.
    """

    task = 'detection'
    outputs = ('boxes', 'scores', 'labels')
    batched = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.name = type(model).__name__
        self.backbone = model.backbone
        self.neck = model.neck
        self.operators: Operators = PLAIN
        self.padding = model.data_preprocessor.pad_size_divisor
        self.pad_value = float(model.data_preprocessor.pad_value)
        self.settings: dict[str, Any] = {}
        self.dtype = torch.float32

    @property
    def description(self) -> str:
        return f'{self.name} of {type(self.backbone).__name__}'

    @property
    def onnx_translations(self) -> dict[Any, Any]:
        return detector_translations()

    def for_format(self, format: str) -> Program:
        form = copy.copy(self)
        form.operators = PLAIN if format == 'torch' else STANDARD
        return form

    def in_precision(self, dtype: torch.dtype) -> Program:
        """A copy whose network computes in a type; scores, boxes and RoIAlign stay float32."""
        if dtype is torch.float32:
            return self
        form = copy.deepcopy(self).to(dtype)
        form.dtype = dtype
        return form

    def maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """The levels of the pyramid, of the image padded to a whole number of steps."""
        height, width = image.shape[-2:]
        step = self.padding
        below = (height + step - 1) // step * step - height
        right = (width + step - 1) // step * step - width
        padded = F.pad(image, (0, right, 0, below), value=self.pad_value)
        return self.neck(self.backbone(padded.to(self.dtype)))


class OneStageProgram(DetectorProgram):
    """RetinaNet."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        rule = model.test_cfg
        self.smallest = _smallest(model.bbox_head)
        self.scan = AnchorScan(model.bbox_head, rule.nms_pre, rule.get('score_thr', 0))
        self.least = rule.get('min_bbox_size', -1)
        self.suppression = suppression_of(rule)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        size = image.shape[-2:]
        boxes, scores, labels = (
            part.flatten(0, 1) for part in self.scan(self.maps(image), size, self.operators)
        )
        (found,) = torch.where((scores >= 0) & large_enough(boxes, self.least))
        candidates = [part.index_select(0, found) for part in (boxes, scores, labels)]
        return detections(*candidates, self.suppression, self.operators)


class TwoStageProgram(DetectorProgram):
    """Faster R-CNN, Mask R-CNN, and their cascades."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        rule = model.test_cfg.rpn
        self.smallest = _smallest(model.rpn_head)
        self.scan = AnchorScan(model.rpn_head, rule.nms_pre, ABSENT / 2)
        self.least = rule.get('min_bbox_size', -1)
        self.proposing = suppression_of(rule)
        roi_head, rule = model.roi_head, model.test_cfg.rcnn
        self.stages = BoxStages(
            listed(roi_head.bbox_head), listed(roi_head.bbox_roi_extractor), rule.score_thr
        )
        self.suppression = suppression_of(rule)
        self.masks = None
        if roi_head.with_mask:
            self.masks = MaskStages(listed(roi_head.mask_head), listed(roi_head.mask_roi_extractor))
            self.outputs = (*self.outputs, 'masks')
            self.settings = {'mask_threshold': rule.mask_thr_binary}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        size, operators = image.shape[-2:], self.operators
        features = self.maps(image)
        boxes, scores, labels = self.stages(
            features, self.proposals(features, size), size, operators
        )
        boxes, scores, labels = detections(boxes, scores, labels, self.suppression, operators)
        if self.masks is None:
            return boxes, scores, labels
        return boxes, scores, labels, self.masks(features, boxes, labels, operators)

    def proposals(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Boxes ``[N, 4]`` that may hold an object."""
        boxes, scores, _ = self.scan(features, size, self.operators)
        scores = torch.where(large_enough(boxes, self.least), scores, ABSENT)
        level = torch.arange(scores.shape[0], device=scores.device).unsqueeze(-1)
        return self.proposing.best(boxes, scores, level, self.operators)[0]


def suppression_of(rule: Any) -> Suppression:
    """What a test config says about who stays."""
    return Suppression(
        rule.nms.iou_threshold, rule.max_per_img, rule.nms.get('class_agnostic', False)
    )


def _smallest(head: nn.Module) -> int:
    """Least side for which the coarsest map has more than one row.

    PyTorch tells a map of one row or column from the others where sizes are open.
    """
    return max(max(stride) for stride in head.prior_generator.strides) + 1
