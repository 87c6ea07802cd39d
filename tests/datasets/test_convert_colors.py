"""Label maps drawn in colours become maps of class numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from convert_helpers import HEIGHT, WIDTH, converted, files_in, labels_of, save_picture
from PIL import Image

from mmsw.datasets.convert.colors import read_table
from mmsw.errors import DataError

LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
road:128,64,128::
car:0,0,142::body,wheel:
"""
COLORS = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142]], np.uint8)
SHAPE = HEIGHT, WIDTH


def save_mask(path: Path, values: np.ndarray, palette: bool = False) -> None:
    """Saves a mask in which each value has its colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if palette:  # of which the numbers mean nothing
        picture = Image.fromarray((2 - values).astype(np.uint8), 'L').copy()
        picture.putpalette(COLORS[::-1].tobytes())
    else:
        picture = Image.fromarray(COLORS[values])
    picture.save(path)


@pytest.fixture
def values() -> np.ndarray:
    return np.random.randint(0, 3, SHAPE)


@pytest.fixture
def cvat(tmp_path: Path, values: np.ndarray) -> Path:
    source = tmp_path / 'cvat'
    for name in ('a', 'sub/b'):
        save_picture(source / 'JPEGImages' / f'{name}.jpg')
        save_mask(source / 'SegmentationClass' / f'{name}.png', values, palette=name == 'a')
        save_mask(source / 'SegmentationObject' / f'{name}.png', values)
    lists = source / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True)
    (lists / 'default.txt').write_text('a\nsub/b\n')
    (source / 'labelmap.txt').write_text(LABELMAP)
    return source


def test_masks_of_cvat(cvat: Path, values: np.ndarray, tmp_path: Path) -> None:
    found = converted('colors', cvat, tmp_path / 'out')
    assert found.values == ['background', 'road', 'car']
    assert files_in(tmp_path / 'out' / 'images') == ['train/a.jpg', 'train/sub/b.jpg']
    for name in ('a.png', 'sub/b.png'):
        np.testing.assert_array_equal(labels_of(tmp_path / 'out', name), values)
    (cvat / 'ImageSets' / 'Segmentation' / 'val.txt').write_text('sub/b\n')
    found = converted('colors', cvat, tmp_path / 'ignored', background=255)
    assert found.values == ['road', 'car']
    expected = np.array([255, 0, 1])[values]
    np.testing.assert_array_equal(labels_of(tmp_path / 'ignored', 'sub/b.png', 'val'), expected)
    converted('colors', cvat, tmp_path / 'chosen', classes=['car'])
    expected = np.array([255, 255, 0])[values]
    np.testing.assert_array_equal(labels_of(tmp_path / 'chosen', 'a.png'), expected)


def test_a_class_that_the_table_lacks_is_named(cvat: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'labelmap\.txt has no colour for cars, which --classes'):
        converted('colors', cvat, tmp_path / 'out', classes=['cars'])
    assert not (tmp_path / 'out').exists()


def test_colours_without_a_class(cvat: Path, values: np.ndarray, tmp_path: Path) -> None:
    picture = COLORS[values]
    picture[3, 4] = 1, 2, 3
    Image.fromarray(picture).save(cvat / 'SegmentationClass' / 'sub' / 'b.png')
    found = converted('colors', cvat, tmp_path / 'out')
    reason = 'the mask has the colour 1,2,3, which the table does not name'
    assert found.found.left_out.skipped == {reason: ['sub/b.jpg']}
    assert files_in(tmp_path / 'out' / 'images') == ['train/a.jpg']
    settings = dict(ignore_unknown=True)
    assert converted('colors', cvat, tmp_path / 'all', settings=settings).images == {'train': 2}
    assert labels_of(tmp_path / 'all', 'sub/b.png')[3, 4] == 255


def test_masks_beside_their_pictures(tmp_path: Path, values: np.ndarray) -> None:
    source = tmp_path / 'camvid'
    for part in ('train', 'val'):
        save_picture(source / part / 'x.png')
        save_mask(source / f'{part}_labels' / 'x_L.png', values)
    (source / 'class_dict.csv').write_text('name,r,g,b\nsky,0,0,0\nroad,128,64,128\ncar,0,0,142\n')
    found = converted('colors', source, tmp_path / 'out', settings=dict(mask_suffix='_L.png'))
    assert found.found.left_out.skipped == {}
    assert found.images == {'train': 1, 'val': 1}
    np.testing.assert_array_equal(labels_of(tmp_path / 'out', 'x.png', 'val'), values)
    with pytest.raises(DataError, match=r'cannot be told from its pictures: name the folder'):
        converted('colors', source, tmp_path / 'other')
    with pytest.raises(DataError, match=r'has no mask whose name ends with _M\.png'):
        converted('colors', source, tmp_path / 'other', settings=dict(mask_suffix='_M.png'))


def test_pictures_in_a_folder_of_their_own(tmp_path: Path, values: np.ndarray) -> None:
    save_picture(tmp_path / 'pictures' / 'a.jpg')
    save_picture(tmp_path / 'pictures' / 'large.jpg', 99, 99)
    for name in ('a', 'large', 'alone'):
        save_mask(tmp_path / 'masks' / f'{name}.png', values)
    table = tmp_path / 'colors.txt'
    table.write_text('0 0 0 sky\n128 64 128\troad side\n0 0 142 car\n')
    settings = dict(images=[tmp_path / 'pictures'], settings=dict(table=table))
    found = converted('colors', tmp_path / 'masks', tmp_path / 'out', **settings)
    assert found.values == ['sky', 'road side', 'car']
    assert found.found.left_out.skipped == {
        'its picture is not there': ['alone'],
        'the annotation states another size than the picture has': ['large'],
    }
    np.testing.assert_array_equal(labels_of(tmp_path / 'out', 'a.png'), values)
    with pytest.raises(DataError, match='masks: there is no table of colours; expected is label'):
        converted('colors', tmp_path / 'masks', tmp_path / 'other', images=settings['images'])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('# nothing\n', 'names no colour; expected are lines such as road:128,64,128'),
        ('a:0,0,0::\nb:0,0,0::\n', r'has the colour \(0, 0, 0\) for a and for b'),
        ('a:0,0,256::\n', r'has the colour \(0, 0, 256\); expected are numbers up to 255'),
    ],
)
def test_wrong_tables(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'labelmap.txt').write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / 'labelmap.txt')
