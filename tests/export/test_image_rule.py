"""The rule for images against test pipelines and preprocessors of the toolboxes, bit for bit."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
import torch
from mmcv.transforms import Resize
from small_models import (
    DETECTOR,
    PIPELINE,
    SEGMENTOR,
    WHOLE,
    model_of,
    picture,
    stand_in,
    write_pictures,
)

from mmsw.apis import UsageError, inference
from mmsw.apis.export.image_rule import for_one_size, image_rule_of
from mmsw.apis.export.rule_steps import way_of
from mmsw.apis.image_way import image_way
from mmsw.deploy.export.image_rule import BorderRule, ImageRule, ResizeRule
from mmsw.deploy.export.input_tensor import program_input

LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackSegInputs')
PREPROCESSOR = 'model.data_preprocessor.test_cfg'
ONE_CHANNEL = {
    **WHOLE,
    'model.decode_head.num_classes': 2,
    'model.decode_head.out_channels': 1,
    'model.decode_head.threshold': 0.4,
    'model.decode_head.loss_decode.use_sigmoid': True,
    'model.auxiliary_head.num_classes': 2,
}


def steps(*between: dict) -> dict[str, Any]:
    return {PIPELINE: [LOAD, *between, dict(type='LoadAnnotations'), PACK]}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@pytest.mark.parametrize(
    'options',
    [
        {},
        WHOLE,
        ONE_CHANNEL,
        {**WHOLE, PREPROCESSOR: dict(size_divisor=32)},
        {PREPROCESSOR: dict(size=(90, 100)), **steps(dict(type='Resize', scale=(77, 50)))},
        {**WHOLE, **steps(dict(type='Resize', scale=(77, 50), keep_ratio=True))},
        {
            **WHOLE,
            **steps(
                dict(type='Resize', scale_factor=1.3, keep_ratio=True, backend='pillow'),
                dict(type='Pad', size_divisor=32, pad_val=dict(img=7)),
            ),
        },
    ],
    ids=['slide', 'whole', 'one channel', 'divisor', 'size', 'ratio', 'resize and pad'],
)
def test_results_are_those_of_the_segmentor(options: dict, tmp_path: Path) -> None:
    """Of arrays and of files, in batches and alone: logits, classes and what a sample tells."""
    model = model_of(SEGMENTOR, options)
    exported = stand_in(model)
    for size in ((61, 87), (100, 64)):
        images = [picture(*size), str(write_pictures(tmp_path, size) / '0.png'), picture(*size)]
        expected = inference(model, images, keep_logits=True, batch_size=2)
        found = exported(images, keep_logits=True, batch_size=2)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.seg_logits.data, other.seg_logits.data)
            classes, truth = one.pred_sem_seg.data, other.pred_sem_seg.data
            assert torch.equal(classes, truth)
            assert classes.dtype == truth.dtype
            told = {name: other.metainfo[name] for name in one.metainfo_keys()}
            assert one.metainfo == told
            assert set(one.keys()) == set(other.keys())
    assert len(classes.unique()) > 1


def test_logits_go_unless_they_are_kept() -> None:
    exported = stand_in(model_of(SEGMENTOR, WHOLE))
    assert 'seg_logits' not in exported(picture(40, 50))


@pytest.mark.parametrize('keep_ratio', [False, True])
@pytest.mark.parametrize('given', [dict(scale=(133, 80)), dict(scale_factor=(0.7, 1.3))], ids=str)
def test_sizes_are_those_of_mmcv(given: dict, keep_ratio: bool) -> None:
    transform = Resize(**given, keep_ratio=keep_ratio)
    rule = ResizeRule(given.get('scale'), given.get('scale_factor'), keep_ratio)
    for _ in range(50):
        height, width = np.random.randint(20, 400, 2).tolist()
        image = np.zeros((height, width), np.uint8)
        assert rule.size(height, width) == transform({'img': image})['img'].shape


def test_a_detector_gets_the_same_pixels() -> None:
    """The image is resized, its channels are swapped; the program pads by itself."""
    model = model_of(DETECTOR, {'model.data_preprocessor.mean': [1.0, 2.0, 3.0],
                                'model.data_preprocessor.std': [4.0, 5.0, 6.0]})  # fmt: skip
    rule = image_rule_of(model)
    assert rule.channel_order == 'RGB'
    image = picture(50, 41)
    here, there = (
        way.array({'img': image.copy()}) for way in (way_of(rule, 'mmdet'), image_way(model))
    )
    assert (
        here['data_samples'].metainfo['scale_factor']
        == (there['data_samples'].metainfo['scale_factor'])
    )
    x = program_input([here['inputs']], rule)
    padded = model.data_preprocessor(
        {'inputs': [there['inputs']], 'data_samples': [there['data_samples']]}
    )['inputs']
    height, width = x.shape[2:]
    assert (height, width) != padded.shape[2:]
    assert torch.equal(x, padded[:, :, :height, :width])
    literal = mmcv.imrescale(image, (96, 64))[..., ::-1].astype(np.float32)
    literal = (literal - np.float32([1, 2, 3])) / np.float32([4, 5, 6])
    np.testing.assert_array_equal(x[0].permute(1, 2, 0), literal)


@pytest.mark.parametrize('size', [(64, 96), (33, 200), (120, 40)])
def test_images_fit_into_one_size(size: tuple[int, int]) -> None:
    """Whatever comes in, the program gets its size, with the shape of the image kept."""
    rule = for_one_size(ImageRule(3, resize=ResizeRule((90, 60), None, True)), size, crops=False)
    way = way_of(rule, 'mmseg')
    for height, width in ((10, 300), (300, 10), (60, 90), (90, 60), (501, 499)):
        image = picture(height, width)
        pixels = way.array({'img': image})['inputs']
        assert program_input([pixels], rule).shape == (1, 3, *size)
        high, wide = pixels.shape[1:]
        assert abs(high / height - wide / width) <= 1 / min(height, width)
        natural = ResizeRule((90, 60), None, True).size(height, width)
        assert high == size[0] or wide == size[1] or (high, wide) == natural


def test_crops_are_taken_from_the_whole_image() -> None:
    rule = for_one_size(ImageRule(3), (64, 64), crops=True)
    for size, expected in (((50, 200), (64, 200)), ((70, 30), (70, 64))):
        assert program_input([torch.zeros(3, *size)], rule).shape[2:] == expected


def test_a_size_that_the_model_pads_is_refused() -> None:
    rule = ImageRule(3, border=BorderRule(divisor=32))
    with pytest.raises(UsageError, match=r'64 70 does not fit .* --size 64 96$'):
        for_one_size(rule, (64, 70), crops=False)
    assert for_one_size(rule, (64, 96), crops=False).border.size == (64, 96)


@pytest.mark.parametrize(
    ('between', 'message'),
    [
        ([dict(type='RGB2Gray')], r'has RGB2Gray as step 2, which an exported file cannot carry'),
        ([dict(type='ResizeToMultiple')], 'has ResizeToMultiple as step 2'),
        ([dict(type='Resize', scale=(8, 8))] * 2, 'Resize in .* stands behind another Resize'),
        ([dict(type='Pad', size=(99, 99))] * 2, 'Pad in .* is the second Pad'),
        ([dict(type='Pad', size=(99, 99), padding_mode='edge')], "padding_mode='edge'"),
    ],
)
def test_what_a_rule_cannot_say_is_refused_by_name(between: list, message: str) -> None:
    model = model_of(SEGMENTOR, steps(*between))
    with pytest.raises(UsageError, match=message):
        image_rule_of(model)


def test_a_preprocessor_of_ones_own_is_refused() -> None:
    model = model_of(SEGMENTOR)
    model.data_preprocessor = type('Mine', (type(model.data_preprocessor),), {})()
    with pytest.raises(UsageError, match='data_preprocessor Mine cannot be exported'):
        image_rule_of(model)


def test_every_value_of_the_rule_counts() -> None:
    """A rule that differs in one value gives another input."""
    rule = ImageRule(
        3,
        resize=ResizeRule((50, 40)),
        swap_channels=True,
        mean=(1.0, 2.0, 3.0),
        std=(2.0, 3.0, 4.0),
    )
    image = picture(30, 45)

    def result(rule: ImageRule) -> torch.Tensor:
        return program_input([way_of(rule, 'mmseg').array({'img': image.copy()})['inputs']], rule)

    same = result(rule)
    for change in (
        dict(resize=ResizeRule((50, 41))),
        dict(resize=ResizeRule((50, 40), interpolation='nearest')),
        dict(swap_channels=False),
        dict(mean=(1.0, 2.0, 4.0)),
        dict(std=(2.0, 3.0, 5.0)),
        dict(border=BorderRule((41, 50))),
        dict(most=(20, 50)),
    ):
        other = result(dataclasses.replace(rule, **change))
        assert other.shape != same.shape or not torch.equal(other, same), change
