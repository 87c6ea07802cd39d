"""Loading transforms: missing and damaged files are named, good ones load as before."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from data_helpers import DETECTOR, SEGMENTOR, encoded, picture
from mmengine.registry import TRANSFORMS, DefaultScope

from mmsw.apis import load_config, register_toolbox
from mmsw.datasets import DataError, LoadValidAnnotations, LoadValidImageFromFile
from mmsw.datasets.loading import is_complete


def test_end_marks() -> None:
    jpeg, png = encoded('.jpg'), encoded('.png')
    thumbnail = b'\xff\xe1' + (2 + len(jpeg)).to_bytes(2, 'big') + jpeg  # with an end mark
    with_thumbnail = jpeg[:2] + thumbnail + jpeg[2:]
    for whole in (jpeg, png, with_thumbnail, jpeg + bytes(99), b'\xff\xd8\xff\xff' + jpeg[3:]):
        assert is_complete(whole)
    for content, cuts in ((jpeg, (4, 30, 300)), (png, (20, 300)), (with_thumbnail, (-2, -300))):
        assert not any(is_complete(content[:cut]) for cut in cuts)
    assert is_complete(b'BM' + bytes(10))  # other formats are for their decoders


BROKEN = {
    'folder': (None, r'cannot be read \(IsADirectoryError'),
    'empty.jpg': (b'', r'is empty \(0 bytes\)'),
    'page.jpg': (b'<html>not found</html>', r"starting with b'<html>no'\) is no picture"),
    'noise.jpg': (b'\xff\xd8\xff\xda' + bytes(30) + b'\xff\xd9', 'is no picture'),
    'cut.jpg': (encoded('.jpg')[:900], 'is cut off: it ends after 900 bytes'),
    'cut.png': (encoded('.png')[:900], 'is cut off: it ends after 900 bytes'),
    'line.png': (encoded('.png', 1, 1001), 'is 1001 pixels wide and 1 high; .* factor of 1000'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_image_files_are_named(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=f'image file {path} .*{message}') as caught:
        LoadValidImageFromFile().transform(dict(img_path=str(path)))
    assert '\n' not in str(caught.value)
    skipping = LoadValidImageFromFile(ignore_empty=True)
    assert skipping.transform(dict(img_path=str(path))) is None


def test_missing_image_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'absent\.jpg does not exist: put it there, .* path$'):
        LoadValidImageFromFile()(dict(img_path=tmp_path / 'absent.jpg'))
    with pytest.raises(DataError, match='Its name has backslashes, which an annotation file from'):
        LoadValidImageFromFile()(dict(img_path=f'{tmp_path}/sub\\absent.jpg'))


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp'])
def test_good_images_load_as_in_mmcv(suffix: str, tmp_path: Path) -> None:
    path = str(tmp_path / f'good{suffix}')
    Path(path).write_bytes(encoded(suffix))
    for options in ({}, dict(to_float32=True), dict(color_type='grayscale')):
        expected = mmcv.transforms.LoadImageFromFile(**options)(dict(img_path=path))
        found = LoadValidImageFromFile(**options)(dict(img_path=path, height=48, width=64))
        np.testing.assert_array_equal(found['img'], expected['img'], strict=True)
        assert found['img_shape'] == found['ori_shape'] == expected['ori_shape']


def test_cut_image_can_be_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / 'cut.jpg'
    path.write_bytes(encoded('.jpg')[:3000])
    loader = LoadValidImageFromFile(allow_truncated=True)
    assert loader(dict(img_path=str(path)))['img'].shape == (48, 64, 3)
    assert 'allow_truncated=True' in repr(loader)


def test_size_must_be_the_one_of_the_annotations(tmp_path: Path) -> None:
    path = tmp_path / 'turned.jpg'
    path.write_bytes(encoded('.jpg', 48, 64))
    with pytest.raises(DataError, match=r'turned\.jpg is 64 pixels wide and 48 high, .* 48 and 64'):
        LoadValidImageFromFile()(dict(img_path=str(path), height=64, width=48))


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine'])
def test_loaders_are_found_from_every_scope(scope: str) -> None:
    registry = pytest.importorskip(f'{scope}.registry', reason=f'{scope}: absent').TRANSFORMS
    with DefaultScope.overwrite_default_scope(scope):
        for transforms in (registry, TRANSFORMS, mmcv.transforms.TRANSFORMS):
            image = transforms.build(dict(type='LoadValidImageFromFile'))
            assert type(image) is LoadValidImageFromFile
            if scope != 'mmengine':
                labels = transforms.build(dict(type='LoadValidAnnotations'))
                assert type(labels.loader).__module__.startswith(f'{scope}.')
                assert type(pickle.loads(pickle.dumps(labels))) is LoadValidAnnotations


def segmentation_sample(folder: Path, labels: np.ndarray | bytes | None, shape=(20, 30)) -> dict:
    path = folder / 'labels.png'
    if isinstance(labels, bytes):
        path.write_bytes(labels)
    elif labels is not None:
        cv2.imwrite(str(path), labels)
    return dict(
        img_path='some.jpg', seg_map_path=str(path), ori_shape=shape, seg_fields=[],
        reduce_zero_label=True, label_map=None,
    )  # fmt: skip


@pytest.fixture
def label_loader() -> LoadValidAnnotations:
    register_toolbox(load_config(SEGMENTOR))
    with DefaultScope.overwrite_default_scope('mmseg'):
        return LoadValidAnnotations()


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (None, 'does not exist'),
        (b'', 'cannot be loaded'),
        (b'<html>', 'cannot be loaded'),
        (cv2.imencode('.png', picture(20, 30)[..., 0])[1].tobytes()[:300], 'cannot be loaded'),
        (np.zeros((20, 31), np.uint8), 'is 31 pixels wide and 20 high, the image 30 and 20'),
        (np.zeros((30, 20), np.uint8), 'is 20 pixels wide and 30 high, the image 30 and 20'),
        (np.zeros((20, 30, 3), np.uint8), r'has shape \(20, 30, 3\), expected one class index'),
    ],
)
def test_broken_label_maps_are_named(
    labels: np.ndarray | bytes | None, message: str, label_loader, tmp_path: Path
) -> None:
    sample = segmentation_sample(tmp_path, labels)
    with pytest.raises(
        DataError, match=rf'label map .*labels\.png of image some\.jpg {message}'
    ) as caught:
        label_loader(sample)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('shape', [(20, 30), (1, 30), (20, 1)])
def test_good_label_maps(shape: tuple[int, int], label_loader, tmp_path: Path) -> None:
    labels = np.random.randint(0, 151, shape, dtype=np.uint8)
    loaded = label_loader(segmentation_sample(tmp_path, labels, shape))
    np.testing.assert_array_equal(loaded['gt_seg_map'], labels - 1, strict=True)  # 0 becomes 255


def test_objects_without_masks_are_named() -> None:
    register_toolbox(load_config(DETECTOR))
    with DefaultScope.overwrite_default_scope('mmdet'):
        loader = LoadValidAnnotations(with_bbox=True, with_mask=True)
    box = dict(bbox=[0, 0, 9, 9], bbox_label=0, ignore_flag=0)
    sample = dict(img_path='some.jpg', ori_shape=(20, 30), instances=[box])
    with pytest.raises(DataError, match=r'of image some\.jpg .*: object 0 has no mask: its segmen'):
        loader(copy.deepcopy(sample))
    box['mask'] = [0, 0, 9, 0, 9, 9]
    with pytest.raises(DataError, match='object 0 has a segmentation that is one list of numbers'):
        loader(copy.deepcopy(sample))
    box['mask'] = dict(size=[5, 5], counts=[25])
    with pytest.raises(DataError, match='object 0 has a mask 5 pixels wide and 5 high in an image'):
        loader(copy.deepcopy(sample))
    box['mask'] = [[0, 0, 9, 0, 9, 9]]
    loaded = loader(sample)
    assert (len(loaded['gt_bboxes']), len(loaded['gt_masks'])) == (1, 1)
