"""Label maps of mmseg: legal ones load as before, others are refused by value."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from data_helpers import exif_picture, register_mmseg
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image

from mmsw.datasets import DataError, LoadValidAnnotations, LoadValidImageFromFile
from mmsw.datasets.label_maps import KnownClasses

SHAPE = (20, 30)


@pytest.fixture(autouse=True)
def _in_mmseg():
    register_mmseg()
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def info_of(path: Path, **settings) -> dict:
    info = dict(img_path='some.jpg', seg_map_path=str(path), ori_shape=SHAPE, seg_fields=[])
    return {**info, 'reduce_zero_label': False, 'label_map': None, **settings}


def saved(values: np.ndarray, folder: Path, suffix: str = '.png', mode: str = '') -> Path:
    path = folder / f'labels{suffix}'
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def numbers(*values: float, dtype: type = np.uint8) -> np.ndarray:
    """A map that begins with the values and is 0 elsewhere."""
    found = np.zeros(SHAPE, dtype)
    found.flat[: len(values)] = values
    return found


def palette_picture(folder: Path) -> Path:
    picture = Image.fromarray(np.random.randint(0, 256, SHAPE, dtype=np.uint8), 'L').copy()
    picture.putpalette(np.random.randint(0, 256, 768, dtype=np.uint8).tobytes())
    assert picture.mode == 'P'
    picture.save(folder / 'labels.png')
    return folder / 'labels.png'


LEGAL = {
    'grey': lambda folder: saved(np.random.randint(0, 256, SHAPE, dtype=np.uint8), folder),
    'palette': palette_picture,
    'one bit': lambda folder: saved(np.random.rand(*SHAPE) > 0.5, folder),
    'wide': lambda folder: saved(numbers(1, 254, 255, dtype=np.uint16), folder),
    'wider': lambda folder: saved(numbers(1, 254, 255, dtype=np.int32), folder, '.tif'),
    'float': lambda folder: saved(numbers(1, 254, 255, dtype=np.float32), folder, '.tif'),
}
SETTINGS = {
    'plain': {},
    'reduced': dict(reduce_zero_label=True),
    'mapped': dict(label_map={0: 255, 1: 0, 2: 1, 3: 2, 254: 7, -1: 9, 256: 9}),
    'both': dict(reduce_zero_label=True, label_map={0: 1, 1: 0, 253: 255, 255: 3}),
}


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize('kind', LEGAL)
def test_legal_maps_load_as_in_mmseg(kind: str, backend: str, tmp_path: Path) -> None:
    path = LEGAL[kind](tmp_path)
    if (kind, backend) == ('palette', 'cv2'):
        with pytest.raises(DataError, match=r'\(20, 30, 3\).*imdecode_backend=.pillow. in'):
            LoadValidAnnotations(imdecode_backend=backend)(info_of(path))
        return
    for settings in SETTINGS.values():
        stock = TRANSFORMS.build(dict(type='LoadAnnotations', imdecode_backend=backend))
        expected = stock(info_of(path, **settings))
        loaded = LoadValidAnnotations(imdecode_backend=backend)(info_of(path, **settings))
        assert loaded.keys() == expected.keys()
        assert loaded['seg_fields'] == expected['seg_fields'] == ['gt_seg_map']
        np.testing.assert_array_equal(loaded['gt_seg_map'], expected['gt_seg_map'], strict=True)
        assert loaded['gt_seg_map'].flags.writeable


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize(
    ('values', 'suffix', 'value'),
    [
        (numbers(3, 257, 26001, dtype=np.uint16), '.png', '257'),
        (numbers(70000, dtype=np.int32), '.tif', '70000'),
        (numbers(1, -1, dtype=np.int32), '.tif', '-1'),
        (numbers(1, 0.5, dtype=np.float32), '.tif', '0.5'),
        (numbers(1, np.nan, dtype=np.float32), '.tif', 'nan'),
    ],
)
def test_other_values_are_named(
    values: np.ndarray, suffix: str, value: str, backend: str, tmp_path: Path
) -> None:
    path = saved(values, tmp_path, suffix)
    with pytest.raises(
        DataError, match=rf'label map {path} of image some\.jpg \(.*\) holds the value {value};'
    ):
        LoadValidAnnotations(imdecode_backend=backend)(info_of(path))


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA'])
def test_pictures_are_no_label_maps(mode: str, tmp_path: Path) -> None:
    path = saved(numbers(1), tmp_path, mode=mode)
    with pytest.raises(DataError, match=r'has shape \(20, 30, \d\), expected one class index'):
        LoadValidAnnotations()(info_of(path))


@pytest.mark.parametrize(
    ('number', 'settings', 'legal', 'strange', 'expected'),
    [
        (3, {}, (0, 1, 2, 255), 7, '0 to 2, and 255 for'),
        (3, dict(reduce_zero_label=True), (0, 1, 2, 3, 255), 4, '1 to 3, and 0 and 255 for'),
        (2, dict(label_map={0: 255, 1: 0, 2: 1}), (0, 1, 2, 255), 3, '1 to 2, and 0 and 255 for'),
        (2, dict(ignored={7, 255}), (0, 1, 7, 255), 2, '0 to 1, and 7 and 255 for'),
    ],
)
def test_values_without_a_class_are_named(
    number: int, settings: dict, legal: tuple, strange: int, expected: str, tmp_path: Path
) -> None:
    settings = dict(settings)
    loader = LoadValidAnnotations()
    ignored = frozenset(settings.pop('ignored', {255}))
    loader.label_maps.known = KnownClasses(number, ignored)
    loader(info_of(saved(numbers(*legal), tmp_path), **settings))
    path = saved(numbers(*legal, strange, strange), tmp_path)
    with pytest.raises(
        DataError,
        match=rf'{path} .* has the value {strange} in 2 of its pixels, but the data set has '
        rf'{number} classes; expected are {expected}',
    ):
        loader(info_of(path, **settings))


def test_zero_must_be_reduced_in_one_way(tmp_path: Path) -> None:
    loader = LoadValidAnnotations(reduce_zero_label=True)
    with pytest.raises(DataError, match='reduce_zero_label=False, but its loader says True'):
        loader(info_of(saved(numbers(1), tmp_path)))


def test_label_map_of_an_image_that_exif_turns(tmp_path: Path) -> None:
    image = tmp_path / 'turned.jpg'
    exif_picture(image, SHAPE, 6)
    info = info_of(saved(numbers(1), tmp_path), img_path=str(image))
    wrong = LoadValidImageFromFile()(copy.deepcopy(info))
    cure = r"its EXIF orientation 6 turned it .* color_type='color_ignore_orientation' in"
    with pytest.raises(DataError, match=f'30 pixels wide and 20 high, the image 20 and 30; {cure}'):
        LoadValidAnnotations()(wrong)
    for backend in ('cv2', 'pillow'):
        cure = dict(color_type='color_ignore_orientation', imdecode_backend=backend)
        right = LoadValidImageFromFile(**cure)(copy.deepcopy(info))
        assert LoadValidAnnotations()(right)['gt_seg_map'].shape == right['img'].shape[:2] == SHAPE


@pytest.mark.parametrize(
    ('given', 'cure', 'stated'),
    [
        ('color', 'color_ignore_orientation', SHAPE),
        ('color_ignore_orientation', 'color', SHAPE[::-1]),
    ],
)
def test_annotated_size_of_an_image_that_exif_turns(
    given: str, cure: str, stated: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / 'turned.jpg'
    exif_picture(path, SHAPE, 6)
    info = dict(img_path=str(path), height=stated[0], width=stated[1])
    with pytest.raises(DataError, match=rf'its EXIF orientation 6 .* color_type={cure!r} in the'):
        LoadValidImageFromFile(color_type=given)(dict(info))
    assert LoadValidImageFromFile(color_type=cure)(dict(info))['img'].shape[:2] == stated
    exif_picture(path, SHAPE, 1)
    with pytest.raises(DataError, match='correct width and height in the annotation file'):
        LoadValidImageFromFile()(info | dict(height=30, width=20))
