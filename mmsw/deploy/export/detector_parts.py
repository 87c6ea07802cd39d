"""Which detectors of mmdet have a program: their types, parts and settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from mmsw.errors import UsageError

_DETECTORS = ('RetinaNet', 'FasterRCNN', 'MaskRCNN', 'CascadeRCNN')
_BOX_HEADS = ('ConvFCBBoxHead', 'Shared2FCBBoxHead', 'Shared4Conv1FCBBoxHead')
# Of what mmcv's nms takes. `split_thr` changes how it computes, not what comes out.
_NMS = ('type', 'iou_threshold', 'class_agnostic', 'split_thr')


def check_detector(model: nn.Module) -> None:
    """Refuse a detector that no program would follow in every step.

    Raises:
        UsageError: Names the type, the part or the setting, and what has a program.
    """
    if not _is_one_of(model, _DETECTORS):
        raise UsageError(
            f'a {type(model).__name__} cannot be exported: of mmdet, {_any_of(_DETECTORS)} was '
            'expected'
        )
    for name, part, known in _parts(model):
        if not _is_one_of(part, known):
            raise UsageError(
                f'{name} is a {type(part).__name__}, which cannot be exported: '
                f'{_any_of(known)} was expected there'
            )
    for name, fits, expected in _settings(model):
        if not fits:
            raise UsageError(f'{name} cannot be exported as it is: {expected} was expected')


def listed(parts: nn.Module) -> list[nn.Module]:
    """The parts of each stage, or the only one."""
    return list(parts) if isinstance(parts, nn.ModuleList) else [parts]


def _is_one_of(part: Any, names: tuple[str, ...]) -> bool:
    """Whether it is of such a type; what others derive from one may compute something else."""
    kind = type(part)
    return kind.__name__ in names and kind.__module__.partition('.')[0] in ('mmdet', 'mmcv')


def _any_of(names: tuple[str, ...]) -> str:
    return ' or '.join(filter(None, [', '.join(names[:-1]), names[-1]]))


def _dense_head(model: nn.Module) -> tuple[str, nn.Module]:
    name = 'rpn_head' if hasattr(model, 'roi_head') else 'bbox_head'
    return name, getattr(model, name)


def _stages(model: nn.Module, kind: str) -> Iterator[tuple[str, nn.Module]]:
    """Parts of each stage of the second step, with their names."""
    parts = getattr(model.roi_head, kind, None)
    several = isinstance(parts, nn.ModuleList)
    for number, part in enumerate(listed(parts) if parts is not None else []):
        yield f'roi_head.{kind}' + (f'[{number}]' if several else ''), part


def _parts(model: nn.Module) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Names, parts, and the types that they may be of."""
    yield 'data_preprocessor', model.data_preprocessor, ('DetDataPreprocessor',)
    name, head = _dense_head(model)
    yield name, head, ('RPNHead' if name == 'rpn_head' else 'RetinaHead',)
    yield f'{name}.prior_generator', head.prior_generator, ('AnchorGenerator',)
    yield f'{name}.bbox_coder', head.bbox_coder, ('DeltaXYWHBBoxCoder',)
    if name == 'bbox_head':
        return
    yield 'roi_head', model.roi_head, ('StandardRoIHead', 'CascadeRoIHead')
    for name, part in _stages(model, 'bbox_head'):
        yield name, part, _BOX_HEADS
        yield f'{name}.bbox_coder', part.bbox_coder, ('DeltaXYWHBBoxCoder',)
    for name, part in _stages(model, 'mask_head'):
        yield name, part, ('FCNMaskHead',)
    for kind in ('bbox_roi_extractor', 'mask_roi_extractor'):
        for name, part in _stages(model, kind):
            yield name, part, ('SingleRoIExtractor',)
            for number, layer in enumerate(part.roi_layers):
                yield f'{name}.roi_layers[{number}]', layer, ('RoIAlign',)


def _settings(model: nn.Module) -> Iterator[tuple[str, bool, str]]:
    """Names of settings, whether they are as a program needs them, and what that is."""
    name, _ = _dense_head(model)
    rule, where = (
        (model.test_cfg.rpn, 'test_cfg.rpn') if name == 'rpn_head' else (model.test_cfg, 'test_cfg')
    )
    yield from _post_processing(rule, where)
    yield f'{where}.nms_pre', rule.get('nms_pre', -1) > 0, 'a number from 1 on'
    if name == 'bbox_head':  # mmdet measures it where boxes are those of the original image
        yield f'{where}.min_bbox_size', rule.get('min_bbox_size', -1) <= 0, '0, or -1,'
        return
    yield 'roi_head.shared_head', not model.roi_head.with_shared_head, 'none'
    for name, part in _stages(model, 'bbox_head'):
        yield f'{name}.with_cls and with_reg', part.with_cls and part.with_reg, 'True for both'
        special = any(
            getattr(part.loss_cls, key, False)
            for key in ('custom_cls_channels', 'custom_activation')
        )
        yield f'{name}.loss_cls ({type(part.loss_cls).__name__})', not special, 'softmax'
    for kind in ('bbox_roi_extractor', 'mask_roi_extractor'):
        for name, part in _stages(model, kind):
            for layer in part.roi_layers:
                averages = layer.pool_mode == 'avg' and not layer.use_torchvision
                yield f'{name}.roi_layer', averages, "mmcv's pool_mode='avg'"
    yield from _post_processing(model.test_cfg.rcnn, 'test_cfg.rcnn')
    if model.roi_head.with_mask:
        least = model.test_cfg.rcnn.mask_thr_binary
        yield 'test_cfg.rcnn.mask_thr_binary', 0 <= least <= 1, 'a number from 0 to 1'


def _post_processing(rule: Any, where: str) -> Iterator[tuple[str, bool, str]]:
    nms = rule.get('nms') or {}
    kind = nms.get('type', 'nms')
    yield f'{where}.nms of type {kind!r}', kind == 'nms', "'nms'"
    yield f'{where}.nms without iou_threshold', 'iou_threshold' in nms, 'one'
    for key in nms:
        yield f'{where}.nms.{key}', key in _NMS, f'none of it, but {_any_of(_NMS)}'
    yield f'{where}.max_per_img', rule.get('max_per_img', -1) > 0, 'a number from 1 on'
    yield f'{where}.score_thr', rule.get('score_thr', 0) >= 0, 'a number from 0 on'
