"""Annotated pictures, and tools/demo_image.py, for both tasks."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from inference_helpers import CONFIGS, ROOT, both

from mmsw.apis import (
    UsageError,
    inference,
)
from mmsw.apis.annotate import annotate_images, check_annotating, describe, draw
from mmsw.datasets import DataError


@both
def test_pictures(scope: str, models, photo: Path, tmp_path: Path) -> None:
    bitmap = tmp_path / 'other.bmp'
    cv2.imwrite(str(bitmap), np.random.randint(0, 256, (40, 50), dtype=np.uint8))
    lines: list[str] = []
    out = tmp_path / 'new' / 'folder'
    pictures = annotate_images(
        models[scope], [photo, str(bitmap)], out, score_thr=0.0, progress=lines.append
    )
    assert pictures == [out / 'photo.png', out / 'other.png']
    assert sorted(path.name for path in out.iterdir()) == ['other.png', 'photo.png']
    assert [cv2.imread(str(path)).shape for path in pictures] == [(61, 87, 3), (40, 50, 3)]
    drawn = cv2.imread(str(pictures[0])).astype(int) - cv2.imread(str(photo))
    assert np.abs(drawn).max() > 20
    assert [line.split(': ')[0] for line in lines] == [str(photo), str(bitmap)]
    assert lines[0].endswith(f' -> {pictures[0]}')
    assert {'mmseg': '%', 'mmdet': ' x square (best '}[scope] in lines[0]


def test_picture_has_the_colours_of_the_classes(models) -> None:
    """Opacity 1 shows nothing but the palette, apart from the small names."""
    image = np.random.randint(0, 256, (120, 120, 3), dtype=np.uint8)
    result = inference(models['mmseg'], image)
    result.pred_sem_seg.data[:] = 3
    drawn = draw(models['mmseg'], image, result, opacity=1.0)
    red_green_blue = models['mmseg'].dataset_meta['palette'][3]
    assert (drawn == np.array(red_green_blue[::-1])).all(2).mean() > 0.8
    assert describe(models['mmseg'], result) == 'floor 100.0%'


def test_threshold_decides_what_is_drawn(models, photo: Path) -> None:
    image = cv2.imread(str(photo))
    result = inference(models['mmdet'], image)
    result.pred_instances.scores[:] = torch.linspace(0.9, 0.1, len(result.pred_instances))
    assert describe(models['mmdet'], result, 0.95) == '0 objects of score 0.95 or more'
    assert describe(models['mmdet'], result, 0.9).startswith('1 object of score 0.9 or more: 1 x ')
    np.testing.assert_array_equal(draw(models['mmdet'], image, result, 0.95), image)
    assert (draw(models['mmdet'], image, result, 0.5) != image).any()


def test_drawing_leaves_the_visualizers_of_runs_alone(models, photo: Path) -> None:
    from mmengine.visualization import Visualizer

    before = dict(Visualizer._instance_dict)
    for model in models.values():
        draw(model, cv2.imread(str(photo)), inference(model, photo))
    assert dict(Visualizer._instance_dict) == before


def test_places_that_cannot_be_written_are_refused(photo: Path, tmp_path: Path) -> None:
    twin = tmp_path / 'twin' / 'photo.png'
    twin.parent.mkdir()
    twin.write_bytes(photo.read_bytes())
    (tmp_path / 'notes.txt').touch()
    for images, out, message in (
        ([photo, twin], tmp_path / 'out', r'several images would be written to .*photo\.png'),
        ([photo], tmp_path, r'photo\.png would be replaced by its picture'),
        ([photo], photo, r'photo\.png would be replaced by its picture'),
        ([photo, twin], tmp_path / 'one.jpg', 'is one file for 2 images: name a folder'),
        ([photo], tmp_path / 'notes.txt', r'is a file that is no \.png or \.jpg'),
    ):
        with pytest.raises(UsageError, match=message):
            check_annotating(images, out)
    assert check_annotating([photo], tmp_path / 'a.JPG') == [tmp_path / 'a.JPG']
    with pytest.raises(UsageError, match=r'opacity must be between 0 and 1, got 1\.5'):
        check_annotating([photo], tmp_path / 'out', opacity=1.5)
    with pytest.raises(DataError, match=r'absent\.png does not exist'):
        check_annotating([photo, 'absent.png'], tmp_path / 'out')


def test_pictures_are_whole_or_not_there(
    models, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, content: bytes) -> int:
        with path.open('wb') as file:
            file.write(content[:10])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full_disk)
    with pytest.raises(OSError, match='No space'):
        annotate_images(models['mmdet'], [photo], tmp_path / 'out')
    assert list((tmp_path / 'out').iterdir()) == []


def call(*arguments: object) -> int:
    main = runpy.run_path(str(ROOT / 'tools' / 'demo_image.py'))['main']
    return main([str(argument) for argument in arguments])


@both
def test_tool(
    scope: str, checkpoints, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    start = (CONFIGS[scope], checkpoints[scope], photo)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        code = call(*start, '--out', tmp_path / 'seen.jpg', '--device', 'cpu', '--score-thr', '0')
    assert code == 0
    assert cv2.imread(str(tmp_path / 'seen.jpg')).shape == (61, 87, 3)
    (line,) = [text for text in capsys.readouterr().out.splitlines() if str(photo) in text]
    assert line.endswith(f'-> {tmp_path / "seen.jpg"}')


def test_errors_of_the_tool(
    checkpoints, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = ('--out', tmp_path / 'out')
    config, checkpoint = CONFIGS['mmseg'], checkpoints['mmseg']
    for arguments, message in (
        ((config, 'absent.pth', photo, *out), 'error: checkpoint absent.pth does not exist'),
        (('absent.py', checkpoint, photo, *out), 'error: config file absent.py does not exist'),
        ((config, checkpoint, 'absent.jpg', *out), 'error: image file absent.jpg does not exist'),
        ((config, checkpoints['mmdet'], photo, *out), 'does not fit the EncoderDecoder'),
        ((config, checkpoint, photo, *out, '--device', 'toaster'), "device 'toaster'"),
        ((config, checkpoint, photo, *out, '--score-thr', '30'), 'score_thr must be between 0'),
    ):
        assert call(*arguments) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / 'out').exists()
