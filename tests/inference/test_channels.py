"""Images of one channel, of four and of more than 8 bits, from training to a picture."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from inference_helpers import CONFIGS, write_data
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import nn

from mmsw.apis import (
    UsageError,
    build_runner,
    build_test_runner,
    inference,
    init_model,
    load_config,
)
from mmsw.apis.annotate import annotate_images, draw
from mmsw.apis.images import displayable


@dataclass
class Case:
    """Kind of images: where they go, how they are stored and loaded."""

    scope: str
    channels: int
    suffix: str
    dtype: type
    loader: dict

    def picture(self) -> np.ndarray:
        shape = (64, 96) if self.channels == 1 else (64, 96, self.channels)
        high = 65536 if self.dtype is np.uint16 else 256
        return np.random.randint(0, high, shape).astype(self.dtype)

    def write(self, folder: Path) -> Path:
        """The data of the others, with images of this kind."""
        root = write_data(self.scope, folder)
        for path in root.rglob('*.jpg'):
            path.unlink()
            cv2.imwrite(str(path.with_suffix(self.suffix)), self.picture())
        for path in root.rglob('*.json'):
            path.write_text(path.read_text().replace('.jpg', self.suffix))
            json.loads(path.read_text())
        return root

    def config(self) -> Config:
        cfg = load_config(CONFIGS[self.scope])
        cfg.model.backbone.in_channels = self.channels
        cfg.model.data_preprocessor.update(mean=[100.0], std=[50.0], bgr_to_rgb=False)
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            dataset = cfg[name].dataset
            dataset = dataset.get('dataset', dataset)
            dataset.pipeline[0].update(self.loader)
            if self.scope == 'mmseg':
                dataset.img_suffix = self.suffix
        return cfg


CASES = {
    'grey': Case('mmseg', 1, '.png', np.uint8, dict(color_type='grayscale')),
    'four': Case('mmseg', 4, '.png', np.uint8, dict(color_type='unchanged')),
    'deep': Case('mmseg', 1, '.tiff', np.uint16, dict(color_type='unchanged')),
    'grey boxes': Case('mmdet', 1, '.png', np.uint8, dict(color_type='grayscale')),
}


@dataclass
class Trained:
    case: Case
    cfg: Config
    folder: Path
    checkpoint: Path
    model: nn.Module


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@pytest.fixture(scope='module', params=CASES)
def trained(request: pytest.FixtureRequest, tmp_path_factory, plain_config_text) -> Trained:
    """After two iterations or one epoch."""
    case, folder = CASES[request.param], tmp_path_factory.mktemp('channels')
    cfg = case.config()
    root = case.write(folder)
    untested = dict.fromkeys(('val_dataloader', 'val_evaluator', 'val_cfg'))
    build_runner(cfg, folder / 'work', data_root=root, cfg_options=untested).train()
    (checkpoint,) = (folder / 'work').glob('*_*.pth')
    return Trained(case, cfg, folder, checkpoint, init_model(cfg, checkpoint))


def values(result: BaseDataElement) -> torch.Tensor:
    if 'pred_sem_seg' in result:
        return result.pred_sem_seg.data
    return torch.cat([result.pred_instances.bboxes, result.pred_instances.scores[:, None]], 1)


def test_they_are_trained_tested_and_drawn(trained: Trained, tmp_path: Path) -> None:
    runner = build_test_runner(
        trained.cfg,
        trained.checkpoint,
        work_dir=tmp_path / 'work',
        data_root=trained.folder / 'data',
        show_dir=tmp_path / 'shown',
    )
    assert {'mIoU', 'coco/bbox_mAP'} & runner.test().keys()
    shown = list((tmp_path / 'shown').rglob('*.*'))
    assert len(shown) == 2

    images = sorted((trained.folder / 'data').rglob(f'*0{trained.case.suffix}'))
    image = next(path for path in images if 'annotations' not in path.parts)
    (picture,) = annotate_images(trained.model, [image], tmp_path / 'seen', progress=lambda _: None)
    drawn = cv2.imread(str(picture))
    assert drawn.shape == (64, 96, 3)
    assert drawn.std() > 5


def test_files_and_arrays_give_the_same(trained: Trained, tmp_path: Path) -> None:
    case = trained.case
    array = case.picture()
    kept = array.copy()
    path = tmp_path / f'image{case.suffix}'
    cv2.imwrite(str(path), array)
    expected = values(inference(trained.model, path))
    assert len(expected) > 0
    arrays = [array, np.asfortranarray(array)]
    if case.channels == 1:
        arrays.append(array[..., None])
    for image in arrays:
        assert torch.equal(values(inference(trained.model, image)), expected)
    assert not torch.equal(values(inference(trained.model, array[::-1])), expected)
    np.testing.assert_array_equal(array, kept)
    picture = draw(trained.model, array, inference(trained.model, array), opacity=0.0)
    assert picture.shape == (64, 96, 3)


def test_other_arrays_are_refused(trained: Trained) -> None:
    case, number = trained.case, trained.case.channels
    takes = f'the model takes images of {number} channels'
    other = np.zeros((9, 9, 5), np.uint8)
    with pytest.raises(UsageError, match=f'{takes}, and this one has 5$'):
        inference(trained.model, other)
    if number == 4:
        with pytest.raises(UsageError, match=f'{takes}, and this one has 1$'):
            inference(trained.model, np.zeros((9, 9), np.uint8))
    if case.loader['color_type'] == 'grayscale':
        with pytest.raises(
            UsageError, match=r'image 0 is a float32 array \[9, 9\]; expected a pat'
        ):
            inference(trained.model, np.zeros((9, 9), np.float32))


def test_files_with_other_channels_are_named(trained: Trained, tmp_path: Path) -> None:
    case = trained.case
    path = tmp_path / 'colours.png'
    cv2.imwrite(str(path), np.zeros((64, 96, 3), np.uint8))
    if case.loader['color_type'] == 'grayscale':
        assert inference(trained.model, path).ori_shape == (64, 96)
        return
    message = (
        rf'colours\.png goes to the model with 3 channels, and .*ShiftWiseNet takes {case.channels}'
    )
    with pytest.raises(UsageError, match=message):
        inference(trained.model, path)


def test_mean_of_other_channels_is_refused(tmp_path: Path) -> None:
    """Before training, and where an image is predicted."""
    cfg = load_config(CONFIGS['mmseg'], {'model.backbone.in_channels': 4})
    message = r'mean of 3 channels, and the ShiftWiseNet takes 4: give mean .* or set in_channels=3'
    root = write_data('mmseg', tmp_path / 'data')
    with pytest.raises(UsageError, match=message):
        build_runner(cfg, tmp_path / 'work', data_root=root).train()
    with pytest.warns(UserWarning, match='random'):
        model = init_model(cfg)
    with pytest.raises(UsageError, match=message):
        inference(model, np.zeros((64, 96, 4), np.uint8))


def test_grey_files_for_a_model_of_three_channels(models, tmp_path: Path) -> None:
    """The preprocessor of mmseg subtracts a mean of three, and has three channels then."""
    path = tmp_path / 'grey.png'
    cv2.imwrite(str(path), np.random.randint(0, 256, (64, 96), dtype=np.uint8))
    expected = values(inference(models['mmseg'], path))
    model = copy.copy(models['mmseg'])
    model.cfg = copy.deepcopy(model.cfg)
    model.cfg.test_dataloader.dataset.pipeline[0].color_type = 'grayscale'
    assert torch.equal(values(inference(model, path)), expected)
    assert torch.equal(values(inference(model, cv2.imread(str(path), 0))), expected)


@pytest.mark.parametrize(
    ('image', 'expected'),
    [
        (np.array([[1, 2]], np.uint8), [[[1] * 3, [2] * 3]]),
        (np.array([[[1, 2, 3, 4]]], np.uint8), [[[1, 2, 3]]]),
        (np.array([[[1, 2]]], np.uint8), [[[1, 1, 1]]]),
        (np.array([[0, 513, 1026]], np.uint16), [[[0] * 3, [128] * 3, [255] * 3]]),
        (np.array([[7, 200]], np.uint16), [[[7] * 3, [200] * 3]]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [[[0] * 3, [128] * 3, [255] * 3]]),
        (np.array([[-1.0, np.nan, 1.0]], np.float32), [[[0] * 3, [128] * 3, [255] * 3]]),
        (np.array([[3.0, 3.0]], np.float32), [[[3] * 3, [3] * 3]]),
        (np.array([[999, 999]], np.uint16), [[[0] * 3, [0] * 3]]),
    ],
)
def test_displayable(image: np.ndarray, expected: list) -> None:
    found = displayable(image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_pictures_of_floats_keep_their_colours() -> None:
    """A loader with to_float32 gives the numbers of the file."""
    image = np.random.randint(0, 256, (5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(displayable(image.astype(np.float32)), image)
