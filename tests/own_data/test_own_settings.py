"""What may stand in ``own_data``, and what is said of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_data_helpers import CLASSES, coco_content, load, write_picture

from mmsw.apis import UsageError, load_config
from mmsw.apis.checks.datasets import explained_errors
from mmsw.apis.own_data.files import held_out
from mmsw.datasets.palette import distinct_colors
from mmsw.errors import DataError

SEGMENTATION = 'own_segmentation_sw_mini'
DETECTION = 'own_retinanet_sw_mini'


@pytest.mark.parametrize(
    ('own', 'said'),
    [
        (dict(clases=('a',)), r"own_data has no 'clases': did you mean classes\?"),
        (dict(image_size=3), "has no 'image_size': that is for detection"),
        (dict(train__image='x'), r"own_data.train has no 'image': did you mean images\?"),
        (dict(task='pose'), "own_data.task is 'pose', expected one of"),
        (dict(classes='road'), r"is the text 'road', of which every letter .*\('road',\)"),
        (dict(classes='names.txt'), "classes='names.txt': there is no such file"),
        (dict(classes=('a', 'a')), 'names a more than once'),
        (dict(classes=None), 'own_data.classes is empty: label maps hold numbers only'),
        (dict(palette=[(1, 2, 3)]), 'palette has 1 colours for 3 classes'),
        (dict(palette=[1, 2, 3]), 'must hold one RGB triple per class'),
        (dict(image_suffix='.png'), r'ends in \.png .*; there are 4 with \.jpg'),
        (dict(image_suffix=('.jpg', '_a.JPG')), r"'_a\.JPG' ends in another one of them"),
        (dict(train__images='imges'), r"train.images='imges': there is no folder .*images/"),
        (dict(val=None), 'own_data.val is empty: .* own_data.val=0.2'),
        (dict(val=1.5), 'own_data.val is 1.5, expected a share'),
        (dict(val=0.9), 'val=0.9 cannot be held out of 4 training images'),
        (dict(binary_masks=True), r'binary_masks=True is for two classes.* has 3'),
        (dict(binary_masks=1), 'binary_masks is 1, expected True or False'),
        (dict(crop_size='big'), "crop_size is 'big', expected height and width"),
        (dict(batch_size=0), 'batch_size is 0, expected a whole number'),
        (dict(batch_size=float('inf')), 'batch_size is inf, expected a whole number'),
        (dict(ignore='all'), "ignore is 'all', expected label values"),
        (dict(iterations=(9, 3)), r'iterations is \(9, 3\), expected the fewest and the most'),
        (dict(scale_range=(2, 1)), r'scale_range is \(2, 1\), expected the smallest'),
        (dict(learning_rate=-1), 'learning_rate is -1, expected a number above 0'),
    ],
)
def test_mistakes_of_a_segmentation_are_named(own: dict, said: str, segmentation: Path) -> None:
    with pytest.raises(UsageError, match=said):
        load(SEGMENTATION, segmentation, **{'classes': CLASSES, **own})


@pytest.mark.parametrize(
    ('own', 'said'),
    [
        (dict(crop_size=3), "has no 'crop_size': that is for segmentation, take image_size"),
        (dict(classes=('cel',)), r"names cel, but the categories of .* Did you mean 'cell'\?"),
        (dict(train__annotations='a.json'), r'there is no file .*a\.json\. In .* train/, val/'),
        (dict(test__images='test'), 'own_data.test lacks annotations: .*tools/predict.py'),
    ],
)
def test_mistakes_of_a_detection_are_named(own: dict, said: str, detection: Path) -> None:
    with pytest.raises(UsageError, match=said):
        load(DETECTION, detection, **own)


def test_annotation_files_that_cannot_be_used_are_named(detection: Path, tmp_path: Path) -> None:
    def write(**content) -> dict:
        path = tmp_path / 'a.json'
        path.write_text(json.dumps({**coco_content(2), **content}))
        return dict(train__annotations=str(path))

    with pytest.raises(DataError, match=r'a\.json lacks the list of images'):
        load(DETECTION, detection, **write(images=None))
    same = [dict(id=0, name='cell'), dict(id=1, name='cell', supercategory='cell')]
    with pytest.raises(DataError, match='several categories of the name cell'):
        load(DETECTION, detection, **write(categories=same))
    bare = coco_content(2, masks=False)['annotations']
    with pytest.raises(UsageError, match=r'masks=True, but none of the 2.*masks=False'):
        load(DETECTION, detection, masks=True, **write(annotations=bare))


def test_without_the_data_a_config_is_read_and_says_what_it_lacks() -> None:
    cfg = load(SEGMENTATION, Path('/absent'), classes=CLASSES)
    assert cfg.train_dataloader.dataset.data_root == '/absent'
    assert cfg.train_cfg.max_iters == 600  # the fewest
    with pytest.raises(UsageError, match='classes=None takes the categories of /absent'):
        load(DETECTION, Path('/absent'))
    assert load(DETECTION, Path('/absent'), classes=('a',)).model.bbox_head.num_classes == 1


def test_nothing_validates_on_training_images_where_the_data_are_absent() -> None:
    own = dict(classes=('a', 'b'), val=0.2)
    assert load(DETECTION, Path('/absent'), **own).val_dataloader.dataset.indices == []
    cfg = load(SEGMENTATION, Path('/absent'), **own)
    assert cfg.val_dataloader.dataset.indices == []
    with (
        pytest.raises(UsageError, match=r'val_dataloader.dataset.indices is empty.*at hand'),
        explained_errors(cfg.val_dataloader, 'val_dataloader'),
    ):
        raise ValueError('need at least one array to concatenate')


def test_images_elsewhere_are_not_counted() -> None:
    own = dict(classes=CLASSES, data_root='s3://bucket/mine')
    with pytest.raises(UsageError, match='max_iters is empty, and the images in s3://bucket'):
        load(SEGMENTATION, **own)
    with pytest.raises(UsageError, match=r'val=0.2 needs to list the images'):
        load(SEGMENTATION, max_iters=9, val=0.2, **own)
    cfg = load(SEGMENTATION, max_iters=9, **own)
    assert cfg.train_dataloader.dataset.data_root == 's3://bucket/mine'


def test_options_for_own_data_need_one() -> None:
    with pytest.raises(UsageError, match=r'own_data\.classes needs a config with own_data'):
        load_config('upernet_sw_t_ade20k', {'own_data.classes': CLASSES})


def test_the_part_held_out_depends_on_the_names_alone() -> None:
    names = [f'{index}.jpg' for index in range(100)]
    chosen = {names[index] for index in held_out(names, 0.2)}
    assert len(chosen) == 20
    turned = names[::-1]
    assert {turned[index] for index in held_out(turned, 0.2)} == chosen
    more = [*names, *(f'new{index}.jpg' for index in range(10))]
    again = {more[index] for index in held_out(more, 0.2)}
    assert len(again) == 22
    assert len(chosen & again) >= 16


def test_colors_differ_and_stay() -> None:
    colors = distinct_colors(1000)
    assert len(set(colors)) == 1000
    assert distinct_colors(12) == colors[:12]
    assert all(0 <= value <= 255 for color in colors for value in color)
    with pytest.raises(ValueError, match='0 to 5000'):
        distinct_colors(5001)


def test_a_file_with_names(segmentation: Path, tmp_path: Path) -> None:
    path = tmp_path / 'names.txt'
    path.write_text('sky\n\n tree \n', encoding='utf-8')
    cfg = load(SEGMENTATION, segmentation, classes=str(path))
    assert cfg.train_dataloader.dataset.metainfo.classes == ('sky', 'tree')
    path.write_text('\n')
    with pytest.raises(UsageError, match='has no line with a name'):
        load(SEGMENTATION, segmentation, classes=str(path))


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    for split in ('train', 'val'):
        (tmp_path / 'images' / split).mkdir(parents=True)
        write_picture(tmp_path / 'labels' / split / '0.png', channels=1)
    with pytest.raises(UsageError, match=r'ends in \.jpg .*; there are no files'):
        load(SEGMENTATION, tmp_path, classes=CLASSES)
