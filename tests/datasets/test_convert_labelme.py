"""JSON files of labelme become COCO JSON or label maps."""

from __future__ import annotations

import base64
import io
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
from data_helpers import exif_picture
from PIL import Image

from mmsw.errors import DataError

SQUARE = [[2, 2], [12, 2], [12, 12], [2, 12]]


def shape(label: object, points: object, kind: str | None = 'polygon', **more) -> dict:
    return dict(label=label, points=points, shape_type=kind, flags={}, **more)


def save_labelme(path: Path, *shapes: dict, **more) -> None:
    whole = dict(version='5', imagePath=f'{path.stem}.jpg', imageData=None, shapes=list(shapes))
    save_json(path, {**whole, 'imageHeight': HEIGHT, 'imageWidth': WIDTH, **more})


def png_of(values: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(values).save(file, 'PNG')
    return base64.b64encode(file.getvalue()).decode()


def test_shapes(tmp_path: Path) -> None:
    source, out = tmp_path / 'labelme', tmp_path / 'out'
    save_picture(source / 'a.jpg')
    drawn = np.zeros((4, 6), np.uint8)
    drawn[1:3, 1:5] = 1
    save_labelme(
        source / 'a.json',
        shape('polygon', SQUARE, None),
        shape('rectangle', [[20, 15], [10, 5]], 'rectangle'),
        shape('circle', [[15, 10], [15, 15]], 'circle'),
        shape('mask', [[3, 4], [8, 7]], 'mask', mask=png_of(drawn)),
        shape('group', SQUARE, group_id=1),
        shape('group', [[20, 2], [25, 2], [25, 8]], group_id=1),
        shape('group', SQUARE, group_id=2, difficult=True),
        shape('circle', SQUARE, group_id=1),
    )
    found = converted('labelme', source, out, to=('coco', 'label-maps')).found
    assert found.left_out.skipped == {}
    boxes = {
        'polygon': [[2, 2, 10, 10]],
        'rectangle': [[10, 5, 10, 10]],
        'circle': [[10, 5, 10, 10], [2, 2, 10, 10]],
        'mask': [[4, 5, 4, 2]],
        'group': [[2, 2, 23, 10], [2, 2, 10, 10]],
    }
    objects = objects_of(out)
    for label, expected in boxes.items():
        np.testing.assert_allclose([item[2] for item in objects if item[1] == label], expected)
    assert [item[3] for item in objects if item[1] == 'group'] == [0, 1]
    annotations = coco_of(out)['annotations']
    assert [len(item['segmentation']) for item in annotations] == [1, 1, 1, 2, 2, 1, 1]
    assert annotations[2]['area'] == pytest.approx(np.pi * 25, rel=0.06)
    assert annotations[3]['area'] == 8
    assert isinstance(annotations[3]['segmentation']['counts'], str)
    labels = labels_of(out, 'a.png')
    assert labels[6, 5] == 1 + found.classes.index('mask')


def test_shapes_without_an_area_are_named(tmp_path: Path) -> None:
    source = tmp_path / 'labelme'
    save_picture(source / 'a.jpg')
    save_labelme(
        source / 'a.json',
        shape('good', SQUARE),
        shape('road', [[1, 1], [5, 5]], 'linestrip'),
        shape('road', [[1, 1], [5, 5]], 'line'),
        shape('head', [[1, 1]], 'point'),
        shape('flat', [[1, 1], [5, 5]]),
        shape('', SQUARE),
        shape('bad', [[1, None], [2, 3], [3, 4]]),
        shape('outside', [[40, 2], [50, 2], [50, 9]]),
        shape('empty', [[0, 0], [1, 1]], 'mask', mask='no picture'),
    )
    found = converted('labelme', source, tmp_path / 'out').found
    assert [item[1] for item in objects_of(tmp_path / 'out')] == ['good']
    assert sorted(found.left_out.skipped) == [
        'object of less than a pixel inside of its image',
        'shape of the type line, which has no area',
        'shape of the type linestrip, which has no area',
        'shape of the type mask without a picture that can be read',
        'shape of the type point, which has no area',
        'shape of the type polygon with 2 points',
        'shape with points that are no pairs of numbers',
        'shape without a label',
    ]


def test_pictures_are_found_or_taken_out_of_the_file(tmp_path: Path) -> None:
    source, out = tmp_path / 'labelme', tmp_path / 'out'
    save_picture(tmp_path / 'pictures' / 'b.JPG')
    save_picture(source / 'sub' / 'c.v2.png')
    good = shape('thing', SQUARE)
    noise = np.random.randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    save_labelme(source / 'a.json', good, imageData=png_of(noise))
    save_labelme(source / 'b.json', good, imagePath='..\\pictures\\b.JPG')
    save_labelme(source / 'sub' / 'c.v2.json', good, imagePath='C:\\old\\c.v2.png')
    save_labelme(source / 'd.json', good)
    save_labelme(source / 'e.json', good, imageData='AAAA')
    save_json(source / 'settings.json', [1])
    (source / 'cut.json').write_text('{"shapes": [')
    left_out = converted('labelme', source, out).found.left_out
    assert files_in(out / 'images') == ['train/a.png', 'train/b.jpg', 'train/sub/c.v2.png']
    assert np.array_equal(np.asarray(Image.open(out / 'images/train/a.png')), noise)
    assert left_out.skipped == {
        'its picture is neither there nor in imageData': ['d.json'],
        'the picture cannot be read': ['e.json'],
        'the JSON file has no list of shapes': ['settings.json'],
        'the file is no valid JSON': ['cut.json'],
    }


def test_size_of_a_picture_that_exif_turns(tmp_path: Path) -> None:
    """labelme shows it turned, as training loads it."""
    source = tmp_path / 'labelme'
    source.mkdir()
    for name in ('turned', 'stored'):
        exif_picture(source / f'{name}.jpg', (HEIGHT, WIDTH), 6)
    good = shape('thing', SQUARE)
    save_labelme(source / 'turned.json', good, imageHeight=WIDTH, imageWidth=HEIGHT)
    save_labelme(source / 'stored.json', good)
    found = converted('labelme', source, tmp_path / 'out', to=['label-maps']).found
    assert found.left_out.skipped == {
        'the annotation is for the picture before its EXIF data turn it': ['stored.json']
    }
    assert labels_of(tmp_path / 'out', 'turned.png').shape == (WIDTH, HEIGHT)


def test_values_of_label_maps(tmp_path: Path) -> None:
    """Smaller objects lie above; background and __ignore__ are what labelme means by them."""
    source = tmp_path / 'labelme'
    save_picture(source / 'a.jpg')
    save_labelme(
        source / 'a.json',
        shape('small', [[4, 4], [8, 8]], 'rectangle'),
        shape('zebra', [[2, 2], [20, 12]], 'rectangle'),
        shape('_background_', [[2, 2], [4, 4]], 'rectangle'),
        shape('__ignore__', [[25, 15], [30, 20]], 'rectangle'),
    )
    found = converted('labelme', source, tmp_path / 'out', to=['label-maps'])
    assert found.values == ['_background_', 'small', 'zebra']
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:12, 2:20], expected[2:4, 2:4], expected[4:8, 4:8] = 2, 0, 1
    expected[15:, 25:] = 255
    np.testing.assert_array_equal(labels_of(tmp_path / 'out', 'a.png'), expected)

    found = converted('labelme', source, tmp_path / 'both', to=['label-maps', 'coco'])
    assert (found.values, found.found.classes) == (
        ['_background_', 'small', 'zebra'],
        ['small', 'zebra'],  # a detector does not learn the background
    )
    assert [item['name'] for item in coco_of(tmp_path / 'both')['categories']] == ['small', 'zebra']
    assert len(coco_of(tmp_path / 'both')['annotations']) == 2

    again = dict(to=['label-maps'], background=255, classes=['zebra'])
    found = converted('labelme', source, tmp_path / 'again', **again)
    assert (found.values, found.found.left_out.skipped) == (['zebra'], {})
    expected[:] = 255
    expected[2:12, 2:20] = 0
    expected[2:4, 2:4], expected[15:, 25:] = 255, 255
    np.testing.assert_array_equal(labels_of(tmp_path / 'again', 'a.png'), expected)


def test_folder_of_other_json_files(tmp_path: Path) -> None:
    save_json(tmp_path / 'labelme' / 'coco.json', dict(images=[], annotations=[], categories=[]))
    with pytest.raises(DataError, match='has no JSON file of labelme, with a list of shapes'):
        converted('labelme', tmp_path / 'labelme', tmp_path / 'out')
