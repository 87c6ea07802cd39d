"""The rule for images of an exported file, read off the test images and preprocessor of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from mmsw.component_name import component_package
from mmsw.deploy.export.image_rule import BorderRule, ImageRule, PadRule, ResizeRule
from mmsw.engine.image_channels import image_channels, swaps_channels
from mmsw.errors import UsageError

from ..config import config_name
from ..image_way import image_way

_PREPROCESSORS = {'mmseg': 'SegDataPreProcessor', 'mmdet': 'DetDataPreprocessor'}
_NEEDED = {'mmseg': ('ori_shape',), 'mmdet': ('ori_shape', 'img_shape', 'scale_factor')}
_PACKAGES = ('mmcv', 'mmseg', 'mmdet', 'mmsw')


def image_rule_of(model: nn.Module) -> ImageRule:
    """The rule that does what the test pipeline and the preprocessor of a model do.

    Args:
        model: What :func:`mmsw.apis.init_model` returned.

    Raises:
        UsageError: If a rule cannot say what one of them does; names it.
    """
    way = image_way(model)
    place = f'the test pipeline of {config_name(model.cfg)}'
    rule = ImageRule(image_channels(model))
    for index, step in enumerate(way.file.transforms):
        kind = type(step)
        read = _READERS.get(kind.__name__)
        if read is None or component_package(kind) not in _PACKAGES:
            raise UsageError(
                f'{place} has {kind.__name__} as step {index + 1}, which an exported file cannot '
                'carry. It can carry one Resize and one Pad, in this order, between the loader and '
                'the transform that packs: say it by these in test_pipeline, or do it to the '
                'images before they are given to the file'
            )
        rule = read(rule, step, f'{kind.__name__} in {place}')
    keys = dict.fromkeys((*rule.meta_keys, *_NEEDED[way.scope]))
    return _with_preprocessor(replace(rule, meta_keys=tuple(keys)), model, way.scope)


def for_one_size(rule: ImageRule, size: tuple[int, int], *, crops: bool) -> ImageRule:
    """The rule of a file that takes images of one size alone.

    Larger images are shrunk into it with their shape; what is smaller gets a border on the right
    and below.

    Args:
        rule: For any size.
        size: Height and width.
        crops: Whether the program takes crops of this size out of an image, which then stays as
            large as it is.

    Raises:
        UsageError: If the model itself pads images of this size.
    """
    border = rule.border or BorderRule()
    padded = border.around(*size)
    if padded != size:
        raise UsageError(
            f'size {size[0]} {size[1]} does not fit the model, which pads such images to '
            f'{padded[0]} x {padded[1]} pixels: give --size {padded[0]} {padded[1]}'
        )
    return replace(rule, border=replace(border, size=size), most=None if crops else size)


def _load(rule: ImageRule, step: Any, place: str) -> ImageRule:
    return replace(
        rule,
        color_type=step.color_type,
        decoder=step.imdecode_backend or 'cv2',
        to_float32=step.to_float32,
    )


def _resize(rule: ImageRule, step: Any, place: str) -> ImageRule:
    if rule.resize is not None or rule.pad is not None:
        raise UsageError(f'{place} stands behind another Resize or Pad, which cannot be exported')
    resize = ResizeRule(
        scale=_tuple(step.scale),
        factor=None if step.scale is not None else tuple(map(float, step.scale_factor)),
        keep_ratio=step.keep_ratio,
        interpolation=step.interpolation,
        backend=step.backend,
    )
    return replace(rule, resize=resize)


def _pad(rule: ImageRule, step: Any, place: str) -> ImageRule:
    if rule.pad is not None:
        raise UsageError(f'{place} is the second Pad, which cannot be exported')
    if step.padding_mode != 'constant':
        raise UsageError(
            f'{place} has padding_mode={step.padding_mode!r}; constant can be exported'
        )
    pad = PadRule(_tuple(step.size), step.size_divisor, step.pad_to_square)
    return replace(rule, pad=replace(pad, value=_tuple(step.pad_val.get('img', 0))))


def _pack(rule: ImageRule, step: Any, place: str) -> ImageRule:
    return replace(rule, meta_keys=tuple(step.meta_keys))


_READERS: Mapping[str, Callable[[ImageRule, Any, str], ImageRule]] = {
    'LoadImageFromFile': _load,
    'LoadValidImageFromFile': _load,
    'Resize': _resize,
    'Pad': _pad,
    'PackSegInputs': _pack,
    'PackDetInputs': _pack,
}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _with_preprocessor(rule: ImageRule, model: nn.Module, scope: str) -> ImageRule:
    preprocessor = model.data_preprocessor
    kind = type(preprocessor)
    if kind.__name__ != _PREPROCESSORS[scope] or component_package(kind) != scope:
        raise UsageError(
            f'the data_preprocessor {kind.__name__} cannot be exported: expected '
            f'{_PREPROCESSORS[scope]} of {scope}'
        )
    of_mmseg = scope == 'mmseg'
    statistics = {
        name: tuple(getattr(preprocessor, name).flatten().tolist())
        for name in ('mean', 'std')
        if getattr(preprocessor, name, None) is not None
    }
    border = None
    if of_mmseg and preprocessor.test_cfg:
        border = _border_of_mmseg(preprocessor.test_cfg, preprocessor.pad_val)
    elif not of_mmseg:  # the program pads by itself; this is for images of one size
        border = BorderRule(value=float(preprocessor.pad_value))
    swaps = swaps_channels(preprocessor) and rule.channels == 3
    return replace(rule, swap_channels=swaps, border=border, **statistics)


def _border_of_mmseg(test: Mapping[str, Any], value: float) -> BorderRule:
    size, divisor = _tuple(test.get('size')), test.get('size_divisor') or 1
    size = (size, size) if isinstance(size, int) else size
    return BorderRule(size, divisor, float(value))
