"""Some label maps are looked at before a run, and every loader learns which classes there are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from data_helpers import PIPELINE, picture, segmentation_data
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import nn

from mmsw.apis.checks import label_maps
from mmsw.apis.checks.label_maps import (
    forget_classes,
    look_at_label_maps,
    look_at_order,
    tell_classes,
)
from mmsw.datasets import DataError

LOGGER = logging.getLogger('test_label_map_checks')
SHAPE = (8, 9)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Saves a label map per argument, which holds the values of it in turn."""

    def make(*maps: tuple[int, ...]) -> Path:
        for kind in ('img', 'ann'):
            (tmp_path / kind).mkdir()
        for index, values in enumerate(maps):
            labels = np.resize(np.array(values, np.uint8), SHAPE)
            cv2.imwrite(str(tmp_path / 'ann' / f'{index:02}.png'), labels)
            cv2.imwrite(str(tmp_path / 'img' / f'{index:02}.jpg'), picture(*SHAPE))
        return tmp_path

    return make


def looked_at(dataset: object, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    tell_classes(dataset, nn.Module())
    look_at_label_maps(dataset, 'train_dataloader', LOGGER)
    return [record.getMessage() for record in caplog.records]


def names(number: int) -> dict:
    return dict(classes=tuple(f'n{index}' for index in range(number)))


def mapped(**settings) -> dict:
    return dict(pipeline=[*PIPELINE, dict(type='MapLabelValues', **settings)])


@pytest.mark.parametrize(
    ('maps', 'number', 'settings', 'message'),
    [
        (
            [(0, 255), (0,)], 2, {},
            'in the 2 of 2 label maps looked at, no pixel is of class n1, and 25% of the pixels '
            'are ignored (label 255). Masks drawn with 0 and 255 need own_data.binary_masks=True '
            "in a config with own data, in any other dict(type='MapLabelValues', mapping={255: 1})",
        ),
        (
            [(0, 1, 255)], 3, {},
            'no pixel is of class n2, and 33% of the pixels are ignored (label 255). If these are '
            'meant to be of a class, save its index in their place',
        ),
        ([(0, 255)], 30, {}, 'no pixel is of class n1, n2, n3, n4 and 25 more, and 50%'),
        ([(0, 255)], 2, dict(reduce_zero_label=True), 'every pixel is ignored (label 255)'),
        ([(0, 255)], 2, mapped(mapping={255: 1}), None),
        (
            [(0, 1), (255,)], 2, mapped(mapping={255: 1}),
            'looked at, 255 is mapped to class 1, which other pixels have as 1. If 255 means',
        ),
        ([(0, 7, 7)], 2, mapped(ignore=(7,)), 'no pixel is of class n1, and 67% of the pixels'),
        ([(0, 7, 8)], 2, mapped(mapping={8: 1}, ignore=(7,)), None),
        ([(1, 2, 9)], 2, mapped(ignore=(8,)) | dict(reduce_zero_label=True), None),
        ([(0, 1, 255)], 2, {}, None),
        ([(0, 1)], 3, {}, None),  # nothing is ignored
        ([(0, 1, 255)], 30, {}, None),  # many classes: some are rare
        ([(0, 1, 2)], 2, dict(reduce_zero_label=True), None),
    ],
)  # fmt: skip
def test_maps_that_little_can_be_learned_from(
    maps: list, number: int, settings: dict, message: str | None, folder, caplog
) -> None:
    dataset = segmentation_data(folder(*maps), metainfo=names(number), **settings)
    found = looked_at(dataset, caplog)
    assert len(found) == (message is not None)
    assert all(text.startswith('train_dataloader: ') and message in text for text in found)


def test_few_maps_are_looked_at(folder, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = segmentation_data(folder(*[(0, 255)] * 30))
    assert 'in the 24 of 30 label maps' in looked_at(dataset, caplog)[0]
    monkeypatch.setattr(label_maps, '_MOST_SECONDS', 0)
    assert 'in the 1 of 30 label maps' in looked_at(dataset, caplog)[0]


def wrapped(dataset: BaseDataset, kind: str) -> object:
    if kind == 'ConcatDataset':
        return ConcatDataset([dataset])
    if kind == 'RepeatDataset':
        return RepeatDataset(dataset, 3)
    return dataset


@pytest.mark.parametrize('kind', ['alone', 'ConcatDataset', 'RepeatDataset'])
def test_loaders_learn_the_classes(kind: str, folder) -> None:
    dataset = wrapped(segmentation_data(folder((0, 1, 255), (0, 7))), kind)
    assert dataset[1]['gt_seg_map'].max() == 7
    tell_classes(dataset, nn.Module())
    assert dataset[0]['gt_seg_map'].max() == 255
    with pytest.raises(DataError, match=r'01\.png .* has the value 7 in 36 of its pixels'):
        dataset[1]
    cure = r'own data that is own_data\.classes and own_data\.ignore=\(7,\), .* metainfo\.classes'
    with pytest.raises(DataError, match=rf'has the value 7.*{cure}'):
        look_at_label_maps(dataset, 'train_dataloader', LOGGER)


def test_loaders_inside_of_test_time_augmentation_learn_them(folder) -> None:
    flips = [[dict(type='RandomFlip', prob=0.0)], [PIPELINE[1]]]
    pipeline = [PIPELINE[0], dict(type='TestTimeAug', transforms=flips)]
    dataset = segmentation_data(folder((0, 7)), pipeline=pipeline)
    tell_classes(dataset, nn.Module())
    with pytest.raises(DataError, match='has the value 7'):
        dataset[0]


def test_what_is_mapped_is_legal(folder) -> None:
    steps = [dict(type='MapLabelValues', ignore=(7,)), dict(type='MapLabelValues', mapping={9: 1})]
    dataset = segmentation_data(folder((0, 7, 9), (0, 8)), pipeline=[*PIPELINE, *steps])
    tell_classes(dataset, nn.Module())
    assert set(np.unique(dataset[0]['gt_seg_map'])) == {0, 1, 255}
    expected = r'01\.png .* the value 8 in .*; expected are 0 to 1 and 9, and 7 and 255 for what is'
    with pytest.raises(DataError, match=expected):
        dataset[1]
    mapped_again = mapped(mapping={255: 1, 8: 0})['pipeline'][-1]
    flips = [[dict(type='RandomFlip', prob=0.0)], [PIPELINE[1]], [mapped_again]]
    pipeline = [PIPELINE[0], dict(type='TestTimeAug', transforms=flips)]
    dataset = segmentation_data(dataset.data_root, pipeline=pipeline)
    tell_classes(dataset, nn.Module())
    with pytest.raises(DataError, match=r'the value 7 .* 0 to 1, 8, 255, and nothing for'):
        dataset[0]
    assert set(np.unique(dataset[1]['gt_seg_map'][0])) == {0}  # 0 and 8


def test_what_may_be_mapped_is_left_alone(folder) -> None:
    now_and_then = dict(type='RandomApply', transforms=mapped(ignore=(7,))['pipeline'][2:], prob=0)
    dataset = segmentation_data(folder((0, 7)), pipeline=[*PIPELINE, now_and_then])
    tell_classes(dataset, nn.Module())
    assert dataset[0]['gt_seg_map'].max() == 7


def test_mapping_behind_a_step_that_fills(folder, caplog: pytest.LogCaptureFixture) -> None:
    root, pad = folder((0, 255)), dict(type='Pad', size=(64, 96))
    mapper = mapped(mapping={255: 1})['pipeline'][-1]
    for steps, number in (((mapper, pad), 0), ((pad, mapper), 1)):
        dataset = segmentation_data(root, pipeline=[*PIPELINE, *steps])
        look_at_order(dataset, 'train_dataloader', LOGGER)
        assert len(caplog.records) == number
    assert 'maps 255 to class 1 behind Pad, which fills' in caplog.text


def test_masks_drawn_as_jpeg(folder) -> None:
    root = folder((0, 1))
    cv2.imwrite(str(root / 'ann' / '00.jpg'), np.full(SHAPE, 77, np.uint8))
    dataset = segmentation_data(root, seg_map_suffix='.jpg')
    tell_classes(dataset, nn.Module())
    with pytest.raises(DataError, match='save label maps as PNG, since JPEG changes values'):
        dataset[0]


@pytest.mark.parametrize('who', ['head', 'metric', 'data set'])
def test_other_labels_may_be_ignored(who: str, folder) -> None:
    settings = dict(ignore_index=7) if who == 'data set' else {}
    dataset = segmentation_data(folder((0, 7, 255)), **settings)
    model, metrics = nn.Module(), [SimpleNamespace(ignore_index=255)]
    if who == 'head':
        model.head = nn.Module()
        model.head.ignore_index = 7
    elif who == 'metric':
        metrics = [SimpleNamespace(ignore_index=7)]
    tell_classes(dataset, model, metrics)
    assert set(np.unique(dataset[0]['gt_seg_map'])) == {0, 7, 255}


def test_one_class_may_be_drawn_with_two_labels(folder) -> None:
    """A head of one output tells 0 from 1."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = segmentation_data(folder((0, 1, 255)), metainfo=dict(classes=('cell',)))
    tell_classes(dataset, nn.Module())
    with pytest.raises(DataError, match='has the value 1'):
        dataset[0]

    class BaseDecodeHead(nn.Module):
        out_channels = 1

    tell_classes(dataset, BaseDecodeHead())
    assert dataset[0]['gt_seg_map'].max() == 255


@TRANSFORMS.register_module()
class LabelsOfMine(BaseTransform):
    """Gives labels another meaning."""

    def transform(self, results: dict) -> dict:
        results['gt_seg_map'] = (results['gt_seg_map'] == 7).astype(np.uint8)
        return results


def test_own_code_may_give_labels_another_meaning(folder, caplog) -> None:
    dataset = segmentation_data(folder((0, 7)), pipeline=[*PIPELINE, dict(type='LabelsOfMine')])
    assert looked_at(dataset, caplog) == []
    assert set(np.unique(dataset[0]['gt_seg_map'])) == {0, 1}


def test_some_classes_of_a_known_data_set(folder, caplog) -> None:
    """The others are left out on purpose."""
    settings = dict(type='CityscapesDataset', img_suffix='.jpg', seg_map_suffix='.png')
    chosen = dict(metainfo=dict(classes=('road', 'car')), **settings)
    assert looked_at(segmentation_data(folder((0, 1, 2)), **chosen), caplog) == []


def test_classes_are_forgotten_where_nothing_is_compared(folder) -> None:
    dataset = segmentation_data(folder((0, 7)))
    tell_classes(dataset, nn.Module())
    forget_classes(dataset)
    assert dataset[0]['gt_seg_map'].max() == 7


def test_images_without_a_folder_of_label_maps(folder, caplog) -> None:
    dataset = segmentation_data(folder((0, 1)), data_prefix=dict(img_path='img'))
    with pytest.raises(DataError, match=r'0\.jpg has no label map in its data set: name the fold'):
        looked_at(dataset, caplog)


def test_data_that_cannot_be_asked_is_left_alone(folder, caplog) -> None:
    root = folder((0, 7))
    for other in ([1, 2], SimpleNamespace(metainfo={}), segmentation_data(root, metainfo=None)):
        assert looked_at(other, caplog) == []
    with DefaultScope.overwrite_default_scope('mmseg'):
        stock = TRANSFORMS.build(dict(type='LoadAnnotations'))
    assert looked_at(segmentation_data(root, pipeline=[PIPELINE[0], stock]), caplog) == []
