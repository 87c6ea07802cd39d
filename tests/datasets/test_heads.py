"""Heads must have as many classes as the data; other people's legal ones are left alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from data_helpers import DETECTOR, SEGMENTOR
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmsw.apis import UsageError, load_config, register_toolbox
from mmsw.apis.checks.heads import check_heads


def data(number: int, **settings) -> SimpleNamespace:
    classes = tuple(f'class {index}' for index in range(number))
    metainfo = settings.pop('metainfo', {})
    return SimpleNamespace(metainfo=dict(classes=classes, **metainfo), **settings)


def segmentor(**options) -> nn.Module:
    """The test's segmentor; options replace parts of its heads."""
    cfg = load_config(SEGMENTOR, options)
    return built(cfg.model, 'mmseg')


def built(cfg: dict, scope: str) -> nn.Module:
    register_toolbox(Config(dict(default_scope=scope)))
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg)


def holding(**parts: nn.Module) -> nn.Module:
    """A model with parts below names with dots as double underscores."""
    model = nn.Module()
    for name, part in parts.items():
        place = model
        *outer, last = name.split('__')
        for key in outer:
            if not hasattr(place, key):
                place.add_module(key, nn.Module())
            place = getattr(place, key)
        place.add_module(last, part)
    return model


def test_heads_of_a_segmentor() -> None:
    model = segmentor()
    check_heads(model, data(150), 'train_dataloader')
    with pytest.raises(
        UsageError,
        match=r'^train_dataloader has 3 classes \(class 0, class 1, class 2\), but the model has '
        r'model\.decode_head\.num_classes=150 and model\.auxiliary_head\.num_classes=150: give '
        r'.*--cfg-options model\.decode_head\.num_classes=3 model\.auxiliary_head\.num_classes=3\)',
    ):
        check_heads(model, data(3), 'train_dataloader')
    other = segmentor(**{'model.auxiliary_head.num_classes': 2})
    with pytest.raises(UsageError, match=r'has model\.auxiliary_head\.num_classes=2: give'):
        check_heads(other, data(150), 'val_dataloader')


def test_lists_of_heads_and_test_time_augmentation_are_looked_through() -> None:
    cfg = load_config(SEGMENTOR).model.auxiliary_head
    cfg.num_classes = 2
    heads = nn.ModuleList([built({**cfg, 'num_classes': number}, 'mmseg') for number in (3, 2)])
    model = holding(module__auxiliary_head=heads)
    with pytest.raises(
        UsageError, match=r'the model has model\.auxiliary_head\.1\.num_classes=2: .*\.1\.num_cl'
    ):
        check_heads(model, data(3), 'test_dataloader')


@pytest.mark.parametrize('number', [1, 2])
def test_one_output_for_two_classes(number: int) -> None:
    binary = {'num_classes': 2, 'out_channels': 1, 'threshold': 0.5}
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    options = {
        f'model.{head}.{key}': value
        for head in ('decode_head', 'auxiliary_head')
        for key, value in {**binary, 'loss_decode': loss}.items()
    }
    model = segmentor(**options)
    check_heads(model, data(number), 'train_dataloader')
    with pytest.raises(UsageError, match=r'model\.decode_head\.num_classes=2'):
        check_heads(model, data(3), 'train_dataloader')


def test_heads_of_a_detector() -> None:
    cfg = load_config(DETECTOR, {'model.bbox_head.num_classes': 80}).model
    model = built(cfg, 'mmdet')
    check_heads(model, data(80), 'train_dataloader')
    with pytest.raises(UsageError, match=r'has 1 class \(class 0\), .*bbox_head\.num_classes=80'):
        check_heads(model, data(1), 'train_dataloader')
    words = data(1, return_classes=True)  # open vocabulary
    check_heads(model, words, 'train_dataloader')


def test_other_number_in_a_part_says_nothing_about_the_heads() -> None:
    model = built(load_config(DETECTOR).model, 'mmdet')
    mixed = data(2, datasets=[data(2), data(1)])  # ConcatDataset(ignore_keys='classes')
    check_heads(model, mixed, 'train_dataloader')
    check_heads(model, SimpleNamespace(metainfo={}), 'train_dataloader')
    check_heads(model, [1, 2], 'train_dataloader')


def test_two_stages() -> None:
    boxes = dict(type='Shared2FCBBoxHead', in_channels=4, fc_out_channels=4, num_classes=3)
    masks = dict(type='FCNMaskHead', num_convs=1, in_channels=4, conv_out_channels=4)
    anchors = dict(type='RPNHead', in_channels=4, feat_channels=4)
    stuff = dict(
        type='FusedSemanticHead', num_ins=1, fusion_level=0, num_convs=1, in_channels=4,
        conv_out_channels=4, num_classes=183,
    )  # fmt: skip
    parts = dict(
        rpn_head=built(anchors, 'mmdet'),
        roi_head__bbox_head=nn.ModuleList([built(boxes, 'mmdet')]),
        roi_head__mask_head=built({**masks, 'num_classes': 3}, 'mmdet'),
        roi_head__semantic_head=built(stuff, 'mmdet'),
    )
    check_heads(holding(**parts), data(3), 'train_dataloader')
    alone = built({**masks, 'class_agnostic': True, 'num_classes': 1}, 'mmdet')
    check_heads(holding(**{**parts, 'roi_head__mask_head': alone}), data(3), 'train_dataloader')
    with pytest.raises(
        UsageError,
        match=r'has model\.roi_head\.bbox_head\.0\.num_classes=3 and '
        r'model\.roi_head\.mask_head\.num_classes=3: give',
    ):
        check_heads(holding(**parts), data(2), 'train_dataloader')


def test_things_and_stuff() -> None:
    boxes = dict(type='Shared2FCBBoxHead', in_channels=4, fc_out_channels=4, num_classes=2)
    model = holding(roi_head__bbox_head=built(boxes, 'mmdet'))
    things = dict(thing_classes=('class 0', 'class 1'), stuff_classes=('class 2',))
    check_heads(model, data(3, metainfo=things), 'train_dataloader')
    stale = dict(thing_classes=('person', 'car', 'dog'))  # of the type, when metainfo has others
    check_heads(model, data(3, metainfo=stale), 'train_dataloader')
    with pytest.raises(UsageError, match=r'bbox_head\.num_classes=2'):
        check_heads(model, data(3), 'train_dataloader')
    panoptic = load_panoptic_head(2, 1)
    check_heads(holding(panoptic_head=panoptic), data(3, metainfo=things), 'train_dataloader')
    with pytest.raises(UsageError, match=r'num_things_classes \+ num_stuff_classes=3: give every'):
        check_heads(holding(panoptic_head=panoptic), data(4), 'train_dataloader')


def test_fusion_of_things_and_stuff() -> None:
    fusion = dict(type='HeuristicFusionHead', num_things_classes=2, num_stuff_classes=2)
    stuff = dict(
        type='PanopticFPNHead', num_things_classes=2, num_stuff_classes=1, in_channels=32,
        inner_channels=32,
    )  # fmt: skip
    model = holding(semantic_head=built(stuff, 'mmdet'), fusion=built(fusion, 'mmdet'))
    things = dict(thing_classes=('class 0', 'class 1'), stuff_classes=('class 2',))
    with pytest.raises(
        UsageError, match=r'the model has model\.fusion\.num_things_classes \+ .*_classes=4: give'
    ):
        check_heads(model, data(3, metainfo=things), 'train_dataloader')


def load_panoptic_head(things: int, stuff: int) -> nn.Module:
    settings = dict(num_things_classes=things, num_stuff_classes=stuff, num_classes=things + stuff)
    return without_layers('mmdet.MaskFormerHead', **settings)


def without_layers(name: str, **settings) -> nn.Module:
    """A head with attributes; its layers are not looked at."""
    kind = MODELS.get(name)
    head = kind.__new__(kind)
    nn.Module.__init__(head)
    for key, value in settings.items():
        setattr(head, key, value)
    return head


def test_heads_of_others_are_left_alone() -> None:
    class Boundaries(nn.Module):
        num_classes = 2

    class Boxes(type(built(load_config(DETECTOR).model.bbox_head, 'mmdet'))):
        """Another meaning of ``num_classes`` is possible."""

    own = Boxes.__new__(Boxes)
    nn.Module.__init__(own)
    own.num_classes = 7
    check_heads(holding(decode_head=Boundaries(), bbox_head=own), data(3), 'train_dataloader')

    class Decoder(type(built(load_config(SEGMENTOR).model.decode_head, 'mmseg'))):
        """The classes of a hierarchy, or bins of depths, are others than those of the data."""

    main = Decoder.__new__(Decoder)
    nn.Module.__init__(main)
    main.num_classes = main.out_channels = 7
    check_heads(holding(decode_head=main, auxiliary_head=main), data(3), 'train_dataloader')


def test_proposals_alone() -> None:
    """A detector that only proposes has its head where others have the one for classes."""
    for kind in ('RPNHead', 'GARPNHead', 'CascadeRPNHead'):
        head = without_layers(f'mmdet.{kind}', num_classes=1)
        check_heads(holding(bbox_head=head), data(80), 'train_dataloader')
    proposer = type('RPN', (nn.Module,), {})()
    proposer.bbox_head = without_layers('mmdet.ATSSHead', num_classes=1)
    check_heads(proposer, data(80), 'train_dataloader')


def test_trackers_of_pedestrians() -> None:
    """The benchmark names 13 classes, of which the detector of a tracker learns the first."""
    boxes = dict(type='Shared2FCBBoxHead', in_channels=4, fc_out_channels=4, num_classes=1)
    model = holding(detector__roi_head__bbox_head=built(boxes, 'mmdet'))
    benchmark = type('MOTChallengeDataset', (SimpleNamespace,), {})
    check_heads(model, benchmark(metainfo=data(13).metainfo), 'val_dataloader')
    with pytest.raises(UsageError, match=r'detector\.roi_head\.bbox_head\.num_classes=1'):
        check_heads(model, data(13), 'val_dataloader')
