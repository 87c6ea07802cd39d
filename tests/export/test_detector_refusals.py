"""Detectors that have no program are refused by one line that names why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mmdet.models import ATSS, FCOS, DoubleConvFCBBoxHead
from mmdet.registry import MODELS
from tiny_detectors import build, tiny_config
from torch import nn

from mmsw.deploy.export import program_of
from mmsw.errors import UsageError

RETINANET, MASK = 'retinanet_sw_t_1x_coco.py', 'mask_rcnn_sw_t_1x_coco.py'
CASCADE = 'cascade_mask_rcnn_sw_t_coco.py'
Change = Callable[[Any], None]


def nms_of(rule: str, **settings: Any) -> Change:
    def change(model: Any) -> None:
        model.test_cfg[rule].nms.update(settings)

    return change


CHANGES: dict[str, tuple[str, Change]] = {
    "test_cfg.rcnn.nms of type 'soft_nms'": (MASK, nms_of('rcnn', type='soft_nms')),
    'test_cfg.rpn.nms.offset': (MASK, nms_of('rpn', offset=1)),
    'test_cfg.rcnn.max_per_img': (MASK, lambda model: model.test_cfg.rcnn.update(max_per_img=-1)),
    'test_cfg.rpn.nms_pre': (MASK, lambda model: model.test_cfg.rpn.update(nms_pre=-1)),
    'test_cfg.nms_pre': (RETINANET, lambda model: model.test_cfg.update(nms_pre=0)),
    'test_cfg.min_bbox_size': (RETINANET, lambda model: model.test_cfg.update(min_bbox_size=4)),
    'test_cfg.rcnn.mask_thr_binary': (
        MASK,
        lambda model: model.test_cfg.rcnn.update(mask_thr_binary=-1),
    ),
    'roi_head.bbox_roi_extractor.roi_layer': (
        MASK,
        lambda model: model.roi_head.bbox_roi_extractor.roi_layer.update(pool_mode='max'),
    ),
    'roi_head.bbox_head[1].loss_cls (SeesawLoss)': (
        CASCADE,
        lambda model: model.roi_head.bbox_head[1].update(
            loss_cls=dict(type='SeesawLoss', num_classes=4)
        ),
    ),
    'roi_head.mask_head is a CoarseMaskHead': (
        MASK,
        lambda model: model.roi_head.mask_head.update(type='CoarseMaskHead', num_fcs=1),
    ),
    'rpn_head.bbox_coder is a TBLRBBoxCoder': (
        MASK,
        lambda model: model.rpn_head.update(bbox_coder=dict(type='TBLRBBoxCoder')),
    ),
    'bbox_head is a FreeAnchorRetinaHead': (
        RETINANET,
        lambda model: model.bbox_head.update(type='FreeAnchorRetinaHead', loss_cls=None),
    ),
}


@pytest.mark.parametrize('name', CHANGES)
def test_parts_and_settings(name: str) -> None:
    file, change = CHANGES[name]
    cfg = tiny_config(file)
    change(cfg.model)
    if name.endswith('FreeAnchorRetinaHead'):
        del cfg.model.bbox_head.loss_cls
    with pytest.raises(UsageError) as error:
        program_of(build(cfg))
    text = str(error.value)
    assert text.startswith(name)
    assert 'cannot be exported' in text
    assert text.endswith(('was expected', 'was expected there'))
    assert '\n' not in text


@pytest.mark.parametrize('kind', [FCOS, ATSS])
def test_other_detectors(kind: type[nn.Module]) -> None:
    """A type is enough: nothing of it is asked."""
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    with pytest.raises(UsageError) as error:
        program_of(model)
    assert str(error.value) == (
        f'a {kind.__name__} cannot be exported: of mmdet, RetinaNet, FasterRCNN, MaskRCNN or '
        'CascadeRCNN was expected'
    )


def test_what_others_derive() -> None:
    """A head of the same name, of somebody else, may compute something else."""

    class RetinaHead(MODELS.get('RetinaHead')):
        pass

    model = build(tiny_config(RETINANET))
    model.bbox_head.__class__ = RetinaHead
    with pytest.raises(UsageError, match='bbox_head is a RetinaHead, which cannot be exported'):
        program_of(model)


def test_a_box_head_of_another_kind() -> None:
    model = build(tiny_config(MASK))
    model.roi_head.bbox_head.__class__ = DoubleConvFCBBoxHead
    with pytest.raises(UsageError, match=r'bbox_head is a DoubleConvFCBBoxHead.*Shared2FCBBoxHead'):
        program_of(model)
