"""What tools/check_dataset.py says of objects, classes of images, and data that say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_helpers import annotation, images_of, picture
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from torch.utils.data import Dataset, IterableDataset

from mmsw.apis.dataset_report import DatasetReport, report_dataset, write_report

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]


def config_of(root: Path, **settings) -> Config:
    """A config without a model; settings are of both data sets."""

    def loader(split: str) -> dict:
        dataset = dict(
            type='CocoDataset',
            data_root=str(root),
            metainfo=dict(classes=('square',)),
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=split),
            pipeline=PIPELINE,
            serialize_data=False,
        )
        return dict(batch_size=1, dataset={**dataset, **settings})

    return Config(
        dict(
            default_scope='mmdet',
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            val_evaluator=dict(type='CocoMetric', ann_file=str(root / 'annotations' / 'val.json')),
        )
    )


def lines(report: DatasetReport, level: str = 'error') -> list[str]:
    return [
        ' '.join([item.line(), *item.details]) for item in report.findings if item.level == level
    ]


def test_objects_are_counted(coco, tmp_path: Path, capsys) -> None:
    objects = [
        annotation(0, 0, [1, 1, 8, 8]),
        annotation(1, 0, [0, 0, 60, 60]),
        annotation(2, 0, [20, 10, 40, 50]) | dict(iscrowd=1),
    ]
    objects[2]['segmentation'] = dict(size=[64, 96], counts=[0, 64 * 96])
    report = report_dataset(config_of(coco(annotations=objects)))
    assert lines(report) == []
    found = report.surveys[0].statistics.objects
    assert (found.images, found.empty, found.crowds) == (2, 1, 1)
    assert (dict(found.per_class), found.sizes) == ({0: 2}, {0: [1, 1, 0]})
    assert 'images without an object: 1 of 2' in report.text()
    write_report(report, tmp_path / 'out')
    assert np.ptp(cv2.imread(str(tmp_path / 'out' / 'contact_sheet.png'))) > 200
    content = json.loads((tmp_path / 'out' / 'dataset_report.json').read_text())
    (square,) = content['loaders']['train_dataloader']['objects']['classes']
    assert square == dict(name='square', objects=2, images=1, small=1, medium=1, large=0)
    assert 'annotations' not in capsys.readouterr().out  # of pycocotools


def test_odd_objects(coco) -> None:
    root = coco(
        images=images_of(*[(64, 96)] * 4),
        sizes=((64, 96),) * 4,
        annotations=[
            annotation(0, 0, [10, 10, 0, 5]),
            annotation(1, 1, [200, 200, 10, 10]),
            annotation(2, 2, [80, 50, 40, 40]),
            annotation(3, 3, category=2),
            annotation(4, 3) | dict(segmentation=[[1, 2, 3, 4]]),
            annotation(5, 99),
        ],
        categories=[dict(id=1, name='square'), dict(id=2, name='circle')],
    )
    report = report_dataset(config_of(root))
    assert lines(report) == []
    warnings = '\n'.join(lines(report, 'warning'))
    for text in (
        'boxes without area, or narrower than one pixel, which are left out of the annotation '
        'file: 1',
        'boxes outside of their image, which are left out of the annotation file: 1',
        'annotations of images that are not listed, which are left out of the annotation file: 1',
        'annotations of other categories than the classes of the config, which are left out: 1',
        'boxes that stand out of their image: 1 (',
        'polygons of less than three points: 1 (',
    ):
        assert text in warnings


def test_broken_images_and_files(coco) -> None:
    root = coco(sizes=((64, 96),) * 4)
    (root / 'train' / '0.jpg').write_bytes(b'nothing')
    (root / 'train' / '1.jpg').unlink()
    cv2.imwrite(str(root / 'train' / '2.jpg'), picture(50, 96))
    (root / 'annotations' / 'val.json').write_text('{"images": [')
    broken, missing, invalid = lines(report_dataset(config_of(root)))
    assert 'val.json is no valid JSON' in invalid
    assert 'train_dataloader: 2 images cannot be used: ' in broken
    assert 'train/0.jpg (7 bytes' in broken
    assert 'annotations say 96 and 64' in broken
    assert 'train/1.jpg does not exist' in missing


def test_objects_without_masks_are_told_once(coco) -> None:
    bare = [annotation(0, 0) | dict(segmentation=[]), annotation(1, 1)]
    report = report_dataset(config_of(coco(annotations=bare)))
    (line,) = lines(report)
    assert '1 of the 2 annotations looked at' in line
    assert report.surveys[0].statistics.loaded == {'3 channels, uint8': 2}


class ImagesWithAClass(BaseDataset):
    """As mmpretrain has them."""

    METAINFO = dict(classes=('cat', 'dog'))

    def load_data_list(self) -> list[dict]:
        return [
            dict(img_path=str(Path(self.data_root, f'{index}.png')), gt_label=label)
            for index, label in enumerate((0, 0, 1, [0, 1]))
        ]


class Numbers(Dataset):
    def __init__(self, sick: bool = False) -> None:
        self.sick = sick

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        if self.sick and index == 2:
            raise OSError('disk')
        return index


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.fixture
def other_sets() -> None:
    for kind in (ImagesWithAClass, Numbers, Stream):
        DATASETS.register_module(module=kind, force=True)


@pytest.mark.usefixtures('other_sets')
def test_classes_of_images(tmp_path: Path) -> None:
    for index in range(4):
        cv2.imwrite(str(tmp_path / f'{index}.png'), picture(8, 8))
    dataset = dict(
        type='ImagesWithAClass',
        data_root=str(tmp_path),
        pipeline=[dict(type='LoadImageFromFile')],
        serialize_data=False,
    )
    config = Config(dict(default_scope='mmengine', train_dataloader=dict(dataset=dataset)))
    report = report_dataset(config)
    assert report.findings == []
    assert report.surveys[0].statistics.objects.per_class == {0: 3, 1: 2}
    assert 'cat         3       3' in report.text()


@pytest.mark.usefixtures('other_sets')
@pytest.mark.parametrize(
    ('dataset', 'level', 'text'),
    [
        (dict(type='Numbers'), 'warning', 'Numbers says nothing of its files and labels'),
        (dict(type='Numbers', sick=True), 'error', 'sample 2 cannot be read: OSError: disk'),
        (dict(type='Stream'), 'warning', 'a data set without length'),
        (dict(type='Unheard'), 'error', 'cannot be built: KeyError'),
    ],
)
def test_data_that_say_nothing(dataset: dict, level: str, text: str) -> None:
    config = Config(dict(default_scope='mmengine', train_dataloader=dict(dataset=dataset)))
    (line,) = lines(report_dataset(config), level)
    assert text in line
