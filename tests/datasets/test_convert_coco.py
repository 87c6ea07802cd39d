"""COCO files of annotation programs become label maps, or COCO files with nothing missing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from convert_helpers import (
    HEIGHT,
    WIDTH,
    coco_of,
    converted,
    files_in,
    labels_of,
    objects_of,
    save_json,
    save_picture,
)
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from pycocotools import mask
from torch import nn

from mmsw.apis import register_toolbox
from mmsw.apis.checks.masks import check_masks
from mmsw.datasets.coco_annotations import explain_outline
from mmsw.errors import DataError

SHAPE = HEIGHT, WIDTH
SQUARE = [2, 2, 12, 2, 12, 12, 2, 12]


def ring() -> np.ndarray:
    """A square with a hole."""
    values = np.zeros(SHAPE, np.uint8)
    values[2:12, 2:12] = 1
    values[5:8, 5:8] = 0
    return values


def compressed(values: np.ndarray) -> dict:
    rle = mask.encode(np.asfortranarray(values))
    return dict(size=rle['size'], counts=rle['counts'].decode())


def uncompressed(values: np.ndarray) -> dict:
    flat = values.ravel(order='F')
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return dict(size=list(values.shape), counts=counts if not flat[0] else [0, *counts])


def thing(number: int, image: int, category: int, segmentation: object, **more) -> dict:
    whole = dict(id=number, image_id=image, category_id=category, segmentation=segmentation)
    return {**whole, 'bbox': [2, 2, 10, 10], 'area': 100, 'iscrowd': 0, **more}


def image(number: int, name: str) -> dict:
    return dict(id=number, file_name=name, height=HEIGHT, width=WIDTH)


CATEGORIES = [dict(id=7, name='b'), dict(id=3, name='a')]


def save_coco(path: Path, images: list, things: list, categories: list = CATEGORIES) -> None:
    save_json(path, dict(images=images, annotations=things, categories=categories))


@pytest.fixture
def cvat(tmp_path: Path) -> Path:
    """Pictures in folders, ids with gaps, and masks in each of COCO's forms."""
    source = tmp_path / 'cvat'
    things = [
        thing(5, 9, 7, [SQUARE, [20, 2, 25, 2, 25, 8]]),
        thing(6, 9, 3, uncompressed(ring()), iscrowd=1),
        thing(9, 12, 7, compressed(ring()), bbox=[2, 2, 10, 10]),
        thing(10, 12, 3, [[20, 2, 25, 2, 25, 8]], bbox=[20, 2, 5, 6]),
    ]
    images = [image(9, 'sub/a.jpg'), image(12, 'other\\a.jpg'), image(13, 'empty.jpg')]
    for name in ('sub/a.jpg', 'other/a.jpg', 'empty.jpg'):
        save_picture(source / 'images' / name)
    save_coco(source / 'annotations' / 'instances_default.json', images, things)
    save_json(source / 'annotations' / 'person_keypoints_default.json', dict(images=[]))
    return source


def test_label_maps(cvat: Path, tmp_path: Path) -> None:
    found = converted('coco', cvat, tmp_path / 'out')
    assert found.values == ['background', 'b', 'a']
    assert found.found.left_out.skipped == {}
    names = ['train/empty.png', 'train/other/a.png', 'train/sub/a.png']
    assert files_in(tmp_path / 'out' / 'labels') == names
    polygons = mask.decode(mask.merge(mask.frPyObjects([SQUARE, [20, 2, 25, 2, 25, 8]], *SHAPE)))
    expected = polygons.copy()
    expected[ring() > 0] = 2  # it has less area
    np.testing.assert_array_equal(labels_of(tmp_path / 'out', 'sub/a.png'), expected)
    other = labels_of(tmp_path / 'out', 'other/a.png')
    assert (other == 1).sum() == ring().sum()
    assert other[6, 6] == 0
    assert not labels_of(tmp_path / 'out', 'empty.png').any()
    assert sum(found.pixels['train']) == 3 * HEIGHT * WIDTH


def test_coco_again_means_the_same(cvat: Path, tmp_path: Path) -> None:
    out, again = tmp_path / 'out', tmp_path / 'again'
    converted('coco', cvat, out, to=['coco'])
    assert [item[3] for item in objects_of(out)] == [0, 0, 0, 1]
    converted('coco', out, again, to=['coco', 'label-maps'], crowds_as_objects=True)
    assert [item[3] for item in objects_of(again)] == [0, 0, 0, 0]
    converted('coco', cvat, tmp_path / 'maps')
    for name in files_in(again / 'labels'):
        name = name.removeprefix('train/')
        np.testing.assert_array_equal(labels_of(again, name), labels_of(tmp_path / 'maps', name))
    for item, other in zip(*(coco_of(at)['annotations'] for at in (out, again)), strict=True):
        assert {**item, 'iscrowd': 0} == {**other, 'iscrowd': 0}


def test_roboflow(tmp_path: Path) -> None:
    """Files beside the pictures, and a category that only holds the others together."""
    source = tmp_path / 'roboflow'
    categories = [
        dict(id=0, name='cells', supercategory='none'),
        dict(id=1, name='RBC', supercategory='cells'),
        dict(id=2, name='WBC', supercategory='cells'),
    ]
    for part in ('train', 'valid', 'test'):
        save_picture(source / part / 'x_jpg.rf.1.jpg')
        things = [thing(0, 0, 2, [SQUARE]), thing(1, 0, 1, [])]
        path = source / part / '_annotations.coco.json'
        save_coco(path, [image(0, 'x_jpg.rf.1.jpg')], things, categories)
    found = converted('coco', source, tmp_path / 'out', to=['coco'])
    assert found.found.classes == ['RBC', 'WBC']
    assert found.images == {'train': 1, 'val': 1, 'test': 1}
    assert found.boxes_only == 3
    for part in found.images:
        assert [item[1] for item in objects_of(tmp_path / 'out', part)] == ['WBC', 'RBC']
    maps = converted('coco', source, tmp_path / 'maps')
    reason = 'object that has a box but no outline'
    assert maps.found.left_out.skipped == {reason: ['x_jpg.rf.1.jpg'] * 3}


def test_what_is_missing_is_filled_in(tmp_path: Path) -> None:
    source = tmp_path / 'bare'
    save_picture(source / 'a.jpg')
    bare = dict(id=1, image_id='a', category_id=3)
    things = [dict(bare, segmentation=SQUARE), dict(bare, bbox=[-5, 1, 10, 50])]
    save_coco(source / 'bare.json', [dict(id='a', file_name='/old/a.jpg')], things)
    converted('coco', source / 'bare.json', tmp_path / 'out', to=['coco'])
    content = coco_of(tmp_path / 'out')
    first, second = content['annotations']
    assert content['images'] == [image(1, 'a.jpg')]
    assert (first['bbox'], first['area'], first['segmentation']) == ([2, 2, 10, 10], 100, [SQUARE])
    assert (second['bbox'], second['area'], second['iscrowd']) == ([0, 1, 5, 19], 95, 0)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    source = tmp_path / 'coco'
    save_picture(source / 'a.jpg')
    save_picture(source / '1' / 'same.jpg')
    save_picture(source / '2' / 'same.jpg')
    wrong = [
        dict(size=[5, 5], counts=[25]),
        dict(size=list(SHAPE), counts=[3, 4]),
        dict(size=list(SHAPE), counts=compressed(np.ones((99, 99), np.uint8))['counts']),
        dict(counts=[3, 4]),
        [['x', 1]],
        'polygon',
    ]
    things = [thing(index, 1, 3, item) for index, item in enumerate(wrong)]
    things += [
        thing(20, 1, 3, [], bbox=None),
        thing(21, 1, 99, [SQUARE]),
        thing(22, 99, 3, [SQUARE]),
        thing(23, 1, 3, [SQUARE]),
    ]
    images = [image(1, 'a.jpg'), image(2, 'gone.jpg'), image(3, 'same.jpg')]
    save_coco(source / 'a.json', images, things)
    found = converted('coco', source, tmp_path / 'out', to=['coco']).found
    assert {reason: len(names) for reason, names in found.left_out.skipped.items()} == {
        'its mask has another size than the image': 1,
        'the counts of its mask do not add up to the size of the image': 1,
        'the counts of its mask are damaged': 1,
        'its mask has no counts and size': 1,
        'its outline is neither polygons nor a mask': 2,
        'object without a box and an outline': 1,
        'object of a category that is not listed': 1,
        'annotation of an image that is not listed': 1,
        'its picture is not there': 1,
        '2 pictures have this name': 1,
    }
    assert len(objects_of(tmp_path / 'out')) == 1


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"images": [', 'is no valid JSON'),
        ('{"shapes": []}', 'there is no JSON file in the COCO format, which has the lists images,'),
        ('{"images": [{}], "annotations": [], "categories": []}', r'has in images\[0\] no id and'),
        ('{"images": [], "annotations": [], "categories": []}', 'no image could be converted: th'),
    ],
)
def test_files_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.json').write_text(content)
    with pytest.raises(DataError, match=message):
        converted('coco', tmp_path / 'in', tmp_path / 'out')
    assert sorted(item.name for item in tmp_path.iterdir()) == ['in']


OUTLINES = {
    'polygons': [[SQUARE]],
    'parts': [[SQUARE, [20, 2, 25, 2, 25, 8]]],
    'uncompressed': [uncompressed(ring())],
    'compressed': [compressed(ring())],
    'crowd': [uncompressed(ring()), [SQUARE]],
}


@pytest.mark.parametrize('kind', OUTLINES)
def test_exports_train_as_they_are(kind: str, tmp_path: Path) -> None:
    """Folders in names, ids with gaps, and each form of masks; mmdet's own data set reads them."""
    register_toolbox(Config(dict(default_scope='mmdet')))
    save_picture(tmp_path / 'sub' / 'a.jpg')
    things = [
        thing(index, 9, 7, item, iscrowd=int(kind == 'crowd' and not index))
        for index, item in enumerate(OUTLINES[kind])
    ]
    save_coco(tmp_path / '_annotations.coco.json', [image(9, 'sub/a.jpg')], things)
    pipeline = [
        dict(type='LoadValidImageFromFile'),
        dict(type='LoadValidAnnotations', with_bbox=True, with_mask=True),
    ]
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(
            dict(
                type='CocoDataset', data_root=str(tmp_path), ann_file='_annotations.coco.json',
                data_prefix=dict(img=''), metainfo=dict(classes=('b', 'a')), pipeline=pipeline,
            )
        )  # fmt: skip
    check_masks(dataset, nn.Module(), 'train_dataloader')
    sample = dataset[0]
    areas = [int(item.sum()) for item in sample['gt_masks'].masks]
    expected = {'polygons': [100], 'parts': [114], 'crowd': [ring().sum(), 100]}
    assert areas == expected.get(kind, [ring().sum()])
    assert sample['gt_bboxes_labels'].tolist() == [0] * len(things)
    assert sample['gt_ignore_flags'].tolist() == [kind == 'crowd', False][: len(things)]


@pytest.mark.parametrize(
    ('outline', 'message'),
    [
        (SQUARE, 'one list of numbers, expected are polygons, .*convert_dataset.py coco FILE'),
        (dict(size=[5, 5], counts=[25]), 'a mask 5 pixels wide and 5 high in an image 30 and 20'),
        (dict(size=list(SHAPE), counts=[3, 4]), 'counts add up to 7 pixels, but 30 x 20 are 600'),
        (dict(size=list(SHAPE), counts=''), 'a segmentation without counts: export it again'),
        (dict(size=list(SHAPE)), None),  # mmdet leaves these out
        ([[1, 1, 2, 2]], None),
        ([], None),
    ],
)
def test_outlines_that_mmdet_does_not_load(outline: object, message: str | None) -> None:
    problem = explain_outline(outline, SHAPE)
    assert (problem is None) == (message is None)
    assert message is None or re.search(message, problem)
