"""Running a two-stage detector on a given number of boxes, to count what its RoI heads cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def run_two_stage(
    model: nn.Module, images: Tensor, proposals: int, mask_proposals: int, pretend: bool
) -> None:
    """Run backbone, neck and RPN on images, and every stage of the RoI heads on the same boxes.

    Nothing between the stages depends on what they compute, so the number of boxes is exact.

    Args:
        model: A two-stage detector of mmdet.
        images: ``[1, C, H, W]``.
        proposals: Boxes for the box heads.
        mask_proposals: Boxes for the mask heads.
        pretend: The images hold no data, so features of boxes have to be made up.

    Raises:
        ValueError: If the RoI heads do not take boxes as those of mmdet's Faster, Mask and
            Cascade R-CNN do.
    """
    features = model.extract_feat(images)
    if model.with_rpn:
        model.rpn_head(features)
    head = model.roi_head
    boxes = images.new_zeros(proposals, 5)
    with _made_up_features(head) if pretend else _as_it_is():
        for has_part, name, number in (
            (head.with_bbox, '_bbox_forward', proposals),
            (head.with_mask, '_mask_forward', mask_proposals),
        ):
            if has_part and number:
                for stage in _stages(head, name):
                    stage(features, boxes[:number])


def _stages(head: nn.Module, name: str) -> list[Callable[[tuple[Tensor, ...], Tensor], object]]:
    """The forward functions of the stages of a RoI head, of one stage or a cascade."""
    forward = getattr(head, name, None)
    required = [
        parameter.name
        for parameter in (inspect.signature(forward).parameters.values() if forward else ())
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    ]
    if required in (['x', 'rois'], ['x']):
        return [forward]
    if required == ['stage', 'x', 'rois']:
        return [
            lambda x, rois, stage=stage: forward(stage, x, rois) for stage in range(head.num_stages)
        ]
    raise ValueError(
        f'{type(head).__name__} takes more than features and boxes in {name}: only RoI heads like '
        "those of mmdet's Faster, Mask and Cascade R-CNN can be counted"
    )


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _made_up_features(head: nn.Module) -> Iterator[None]:
    """Let RoI extractors return features of the right size; they have nothing that counts."""
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    extractors = [module for module in head.modules() if type(module) is SingleRoIExtractor]
    for extractor in extractors:
        extractor.forward = _FeaturesOf(extractor)
    try:
        yield
    finally:
        for extractor in extractors:
            del extractor.forward


class _FeaturesOf:
    def __init__(self, extractor: nn.Module) -> None:
        self.channels = extractor.out_channels
        self.size = extractor.roi_layers[0].output_size

    def __call__(self, features: tuple[Tensor, ...], rois: Tensor) -> Tensor:
        return features[0].new_empty(len(rois), self.channels, *self.size)
