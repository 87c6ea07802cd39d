"""The way of an image to an exported program: its rule, done by the toolboxes' own code."""

from __future__ import annotations

from typing import Any

import mmcv
from mmcv.transforms import Pad
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, DefaultScope

from mmsw.datasets import LoadValidImageFromFile
from mmsw.deploy.export.image_rule import ImageRule, ResizeRule

from ..image_way import ImageWay
from ..images import image_kind

_PACKS = {'mmseg': 'PackSegInputs', 'mmdet': 'PackDetInputs'}


def way_of(rule: ImageRule, scope: str) -> ImageWay:
    """How images come to a program, from files and from arrays, up to its order of channels.

    Args:
        rule: Of the program.
        scope: The toolbox whose data samples results are.
    """
    file = LoadValidImageFromFile(rule.to_float32, rule.color_type, rule.decoder)
    steps: list[Any] = [ResizeByRule(rule)]
    if rule.pad is not None:
        steps.append(_pad(rule))
    with DefaultScope.overwrite_default_scope(scope):
        array = TRANSFORMS.build(
            dict(type=f'{scope}.LoadImageFromNDArray', to_float32=rule.to_float32)
        )
        steps.append(TRANSFORMS.build(dict(type=_PACKS[scope], meta_keys=rule.meta_keys)))
        ways = [Compose([loader, *steps]) for loader in (file, array)]
    return ImageWay(scope, *ways, image_kind(rule.channels, file))


class ResizeByRule:
    """Resize ``img`` as ``Resize`` of mmcv does with the arguments in a rule.

    Args:
        rule: Of the program.
    """

    def __init__(self, rule: ImageRule) -> None:
        self._rule = rule

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        image = results['img']
        height, width = image.shape[:2]
        high, wide = self._rule.size(height, width)
        resize = self._rule.resize
        if resize is not None or (high, wide) != (height, width):
            resize = resize or ResizeRule()
            image = mmcv.imresize(
                image, (wide, high), interpolation=resize.interpolation, backend=resize.backend
            )
            results.update(
                img=image,
                img_shape=image.shape[:2],
                scale=(wide, high),
                scale_factor=(wide / width, high / height),
                keep_ratio=resize.keep_ratio,
            )
        return results


def _pad(rule: ImageRule) -> Pad:
    pad = rule.pad
    return Pad(
        size=pad.size,
        size_divisor=pad.size_divisor,
        pad_to_square=pad.pad_to_square,
        pad_val=dict(img=pad.value),
    )
