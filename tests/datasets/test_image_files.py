"""Files that a data set of mmseg leaves out or lacks, by their names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from data_helpers import PIPELINE, picture, segmentation_data
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.registry import TRANSFORMS

from mmsw.apis.checks.datasets import check_dataset
from mmsw.apis.checks.image_files import check_image_files
from mmsw.datasets import DataError

LOGGER = logging.getLogger('test_image_files')


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes empty files in ``img`` and ``ann``."""

    def make(images: str, labels: str) -> Path:
        for kind, names in (('img', images), ('ann', labels)):
            (tmp_path / kind).mkdir()
            for name in names.split():
                (tmp_path / kind / name).parent.mkdir(exist_ok=True)
                (tmp_path / kind / name).touch()
        return tmp_path

    return make


def warnings_of(dataset: BaseDataset, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    check_image_files(dataset, 'train_dataloader', LOGGER)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ('images', 'labels', 'settings', 'left_out'),
    [
        ('a.jpg b.jpg c.JPG d.JPG e.png', 'a.png b.png c.png d.png e.png', {}, '3 of the 5'),
        ('a.jpg s/b.jpg s/c.jpeg', 'a.png s/b.png', {}, '1 of the 3'),
        (
            'a_img.png b_img.PNG c.png',
            'a.png b.png',
            dict(img_suffix='_img.png'),
            '1 of the 2',
        ),
        ('a.jpg a.png notes.txt .b.JPG', 'a.png', {}, None),
        ('a.jpg b.jpg', 'a.png b.png', {}, None),
    ],
)
def test_pictures_that_are_left_out(
    images: str, labels: str, settings: dict, left_out: str | None, folder, caplog
) -> None:
    root = folder(images, labels)
    found = warnings_of(segmentation_data(root, **settings), caplog)
    if left_out is None:
        assert found == []
        return
    (message,) = found
    assert message.startswith(
        f'train_dataloader leaves out {left_out} pictures in {root}/img: img_suffix='
    )


def test_endings_are_counted_and_a_second_set_takes_them(folder, caplog) -> None:
    root = folder('a.jpg b.JPG c.JPG d.png', 'a.png b.png c.png d.png')
    (message,) = warnings_of(segmentation_data(root), caplog)
    assert "img_suffix='.jpg', but 2 end in .JPG, 1 ends in .png. Rename them, or" in message
    assert "own_data.image_suffix=('.jpg', '.png') in a config with own data" in message
    sets = [segmentation_data(root, img_suffix=ending) for ending in ('.jpg', '.JPG', '.png')]
    assert len(ConcatDataset(sets)) == 4
    assert warnings_of(ConcatDataset(sets), caplog) == []
    (root / 'list.txt').write_text('a\n')
    assert warnings_of(segmentation_data(root, ann_file='list.txt'), caplog) == []
    assert warnings_of(segmentation_data(root, indices=1), caplog) == []


def test_images_and_label_maps_in_one_folder(folder, caplog) -> None:
    root = folder('a.jpg a.png b.jpg b.png', '')
    prefix = dict(img_path='img', seg_map_path='img')
    assert warnings_of(segmentation_data(root, data_prefix=prefix), caplog) == []
    same = segmentation_data(root, data_prefix=prefix, img_suffix='.png')
    with pytest.raises(DataError, match=r'img/a\.png is image and label map at once'):
        check_image_files(same, 'train_dataloader', LOGGER)


def test_images_without_label_map(folder) -> None:
    dataset = segmentation_data(folder('a.jpg b.jpg c.jpg', 'a.png'))
    with pytest.raises(
        DataError,
        match=r'label map .*ann/b\.png of image .*b\.jpg does not exist \(missing are 2 for the 3 '
        r'images of train_dataloader\)',
    ):
        check_image_files(dataset, 'train_dataloader', LOGGER)


def test_label_maps_of_other_splits_may_lie_beside(folder, caplog) -> None:
    assert warnings_of(segmentation_data(folder('a.jpg', 'a.png b.png c.png')), caplog) == []


@pytest.mark.parametrize(
    ('line', 'cure'),
    [('a.jpg', r"leave out endings in the list: '\.jpg'"), ('b', 'correct the list')],
)
def test_lists_of_what_does_not_exist(line: str, cure: str, folder) -> None:
    root = folder('a.jpg', 'a.png')
    (root / 'list.txt').write_text(f'{line}\n')
    dataset = segmentation_data(root, ann_file='list.txt')
    with pytest.raises(DataError, match=rf'image file .*{line}\.jpg does not exist .*: .*{cure}'):
        check_image_files(dataset, 'train_dataloader', LOGGER)
    skipping = [dict(type='LoadValidImageFromFile', ignore_empty=True), PIPELINE[1]]
    check_image_files(
        segmentation_data(root, ann_file='list.txt', pipeline=skipping), 'train_dataloader', LOGGER
    )


def test_remote_data_and_pipelines_without_labels_are_left_alone(folder, caplog) -> None:
    root = folder('a.jpg b.JPG', '')
    assert len(warnings_of(segmentation_data(root, pipeline=PIPELINE[:1]), caplog)) == 1
    dataset = segmentation_data(root)
    dataset.backend_args = dict(backend='petrel')
    assert warnings_of(dataset, caplog) == []


@TRANSFORMS.register_module()
class LoadImageOfMyPack(BaseTransform):
    """Finds images in a place of its own."""

    def transform(self, results: dict) -> dict:
        return dict(results, img=picture(8, 9), img_shape=(8, 9), ori_shape=(8, 9))


def test_own_code_may_find_files_elsewhere(folder, caplog, monkeypatch) -> None:
    root = folder('a.JPG b.jpg', '')

    def listed(self: BaseDataset) -> list[dict]:
        given = dict(label_map=None, reduce_zero_label=False, seg_fields=[])
        return [dict(img_path='pack.zip@0', seg_map_path=f'{self.data_root}/0.png', **given)]

    def warned(*pipeline: dict) -> list[str]:
        return warnings_of(segmentation_data(root, pipeline=[*pipeline, PIPELINE[1]]), caplog)

    monkeypatch.setattr(type(segmentation_data(root)), 'load_data_list', listed)
    with pytest.raises(DataError, match=r'pack\.zip@0 does not exist'):
        warned(PIPELINE[0])
    assert warned(dict(type='LoadImageOfMyPack')) == []
    backend = dict(backend='lmdb', db_path='')
    assert warned(dict(type='LoadValidImageFromFile', backend_args=backend)) == []


def test_a_folder_of_other_pictures(tmp_path: Path) -> None:
    for kind in ('img', 'ann'):
        (tmp_path / kind).mkdir()
    cv2.imwrite(str(tmp_path / 'img' / 'a.png'), picture(4, 4))
    dataset = segmentation_data(tmp_path, serialize_data=False)
    with pytest.raises(
        DataError,
        match=r'no file \*\.jpg in .*; of other pictures there 1 ends in \.png: set img_s',
    ):
        check_dataset(dataset, 'train_dataloader')
