"""Operators of detectors in operators of the standard ONNX domain."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from . import nms, roi_align


@cache
def detector_translations() -> dict[Any, Callable]:
    """ONNX functions of detectors' operators, as ``custom_translation_table`` of the exporter.

    ``mmsw_deploy::nms`` becomes NonMaxSuppression, whose groups are its batches, and
    ``mmsw_deploy::roi_align`` becomes RoiAlign. Needs onnxscript.
    """
    from onnxscript import opset18 as op

    def suppressing(boxes, scores, iou_threshold: float, limit: int):
        number = op.Constant(value_ints=[limit])
        overlap = op.Constant(value_floats=[iou_threshold])
        # present boxes have scores from 0 on
        least = op.Constant(value_floats=[nms.ABSENT / 2])
        ones = op.Constant(value_ints=[1])
        kept = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, ones), number, overlap, least)
        # rows of group, class (there is one), box
        places = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
        marks = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(kept, start=0, end=1))
        return op.Greater(
            op.ScatterND(op.Mul(scores, 0.0), places, marks), op.Constant(value_float=0.5)
        )

    def cutting_out(
        features, boxes, height: int, width: int, scale: float, sampling_ratio: int, aligned: bool
    ):
        if aligned and sampling_ratio <= 0:
            boxes = without_points(boxes)
        zeros = op.ConstantOfShape(op.Shape(boxes, start=0, end=1), value=_zero_index())
        return op.RoiAlign(
            features,
            boxes,
            zeros,
            coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
            mode='avg',
            output_height=height,
            output_width=width,
            sampling_ratio=max(0, sampling_ratio),
            spatial_scale=scale,
        )

    def without_points(boxes):
        """Boxes, those without an area far outside of the map, where all runtimes give 0.

        Their average is of no samples: 0 in mmcv and onnxruntime, nan in OpenVINO.
        """
        corners, opposites = op.Split(boxes, num_outputs=2, axis=-1)
        side = op.ReduceMin(op.Sub(opposites, corners), [1], keepdims=1)
        outside = op.Constant(value_floats=[-9e5, -9e5, 1 - 9e5, 1 - 9e5])
        return op.Where(op.Greater(side, 0.0), boxes, outside)

    return {nms.OPERATOR: suppressing, roi_align.OPERATOR: cutting_out}


def _zero_index():
    import onnx

    return onnx.helper.make_tensor('zero', onnx.TensorProto.INT64, [1], [0])
