"""Predicting files, and tools/predict.py, for both tasks."""

from __future__ import annotations

import csv
import json
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from inference_helpers import CONFIGS, ROOT, both
from mmengine.structures import PixelData
from PIL import Image

from mmsw.apis import UsageError, inference, iter_inference
from mmsw.apis.predict import predict_files, run
from mmsw.apis.predict.inputs import Source
from mmsw.apis.predict.outcome import ClassMap, Objects, cut_out, outcome_of
from mmsw.apis.predict.overlay import draw_outcome
from mmsw.apis.predict.rle import encode
from mmsw.apis.predict.writers import LabelMapWriter, Seen

KINDS = {'mmseg': ('overlay', 'label-map'), 'mmdet': ('overlay', 'json', 'csv')}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def picture(height: int = 61, width: int = 87) -> np.ndarray:
    small = np.random.randint(0, 256, (6, 9, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Good images of two sizes, one of them grey and one deep, and two that are bad."""
    folder = tmp_path / 'my album'
    (folder / 'größer').mkdir(parents=True)
    for name in ('a 1.png', 'größer/a 1.png', 'größer/b.png'):
        write(folder / name, picture())
    write(folder / 'grey.png', picture()[..., 0])
    write(folder / 'wide.tif', picture(40, 120).astype(np.uint16) * 257)
    (folder / 'bad.jpg').write_bytes(b'no image')
    (folder / 'größer' / 'cut.png').write_bytes((folder / 'a 1.png').read_bytes()[:60])
    return folder


def write(path: Path, image: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def read(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


def video(path: Path, frames: int = 5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 7, (86, 60))
    image = picture(60, 86)
    for number in range(frames):
        writer.write(np.roll(image, 3 * number, 1))
    writer.release()
    return path


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())


@both
def test_folder_with_bad_files(scope: str, models, album: Path, tmp_path: Path) -> None:
    """The others are there, as if each were predicted alone, and the bad ones are named."""
    lines: list[str] = []
    model, out = models[scope], tmp_path / 'out'
    settings = dict(batch_size=3, score_thr=0.1, progress=lines.append)
    report = predict_files(model, [album], out, KINDS[scope], **settings)
    good = ['a 1.png', 'grey.png', 'größer/a 1.png', 'größer/b.png', 'wide.png']
    assert [name for name in files(out) if name.startswith('overlay/')] == [
        f'overlay/{name}' for name in good
    ]
    assert (report.images, report.inputs, report.interrupted) == (5, 5, False)
    assert [Path(path).name for path in report.skipped] == ['bad.jpg', 'cut.png']
    bad = [line for line in lines if line.startswith('bad: ')]
    assert [name in line for name, line in zip(('bad.jpg', 'cut.png'), bad, strict=True)] == [
        True
    ] * 2
    assert lines[-1].startswith('2 of 7 inputs are bad: ')
    assert read(out / 'overlay' / 'wide.png').shape == (40, 120, 3)

    single = outcome_of(inference(model, album / 'größer' / 'b.png'), 0.1)
    if scope == 'mmseg':
        assert [name for name in files(out) if 'label' in name] == [f'label-map/{n}' for n in good]
        with Image.open(out / 'label-map' / 'größer' / 'b.png') as labels:
            assert labels.mode == 'P'
            assert (np.asarray(labels) == single.labels).mean() > 0.99
            assert tuple(labels.getpalette()[9:12]) == model.dataset_meta['palette'][3]
        return
    from pycocotools.coco import COCO

    coco = COCO(out / 'predictions.json')
    assert [image['file_name'] for image in coco.dataset['images']] == [
        'a 1.png', 'grey.png', 'wide.tif', 'größer/a 1.png', 'größer/b.png'
    ]  # fmt: skip
    assert [(image['height'], image['width']) for image in coco.dataset['images']][2] == (40, 120)
    assert coco.dataset['categories'] == [{'id': 1, 'name': 'square'}]
    found = coco.loadAnns(coco.getAnnIds(imgIds=5))
    x, y, width, height = np.array([item['bbox'] for item in found]).T
    boxes = np.column_stack([x, y, x + width, y + height])
    np.testing.assert_allclose(boxes, single.boxes, atol=0.1)
    np.testing.assert_allclose([item['score'] for item in found], single.scores, atol=1e-3)
    with (out / 'predictions.csv').open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(coco.dataset['annotations']) > 0
    last = rows[-1]
    assert (last['image'], last['class'], last['height']) == ('größer/b.png', 'square', '61')
    assert float(last['x2']) == pytest.approx(boxes[-1, 2], abs=0.011)


@both
def test_video(scope: str, models, tmp_path: Path) -> None:
    clips = [video(tmp_path / 'clip.mp4'), video(tmp_path / 'ünd two.avi', 3)]
    stale = tmp_path / 'out' / 'label-map' / 'ünd two.avi' / '000003.png'
    stale.parent.mkdir(parents=True)
    stale.touch()  # of a longer video
    report = predict_files(
        models[scope], clips, tmp_path / 'out', KINDS[scope], batch_size=4, overwrite=True
    )
    assert (report.images, report.inputs, report.skipped) == (8, 2, {})
    for name, count in (('clip.mp4', 5), ('ünd two.mp4', 3)):
        capture = cv2.VideoCapture(str(tmp_path / 'out' / 'overlay' / name))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == count
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(7)
        assert capture.read()[1].shape == (60, 86, 3)
    if scope == 'mmseg':
        names = [f'label-map/clip.mp4/{number:06d}.png' for number in range(5)]
        assert files(tmp_path / 'out')[:8] == names + [
            f'label-map/ünd two.avi/{number:06d}.png' for number in range(3)
        ]
    else:
        images = json.loads((tmp_path / 'out' / 'predictions.json').read_text('utf-8'))['images']
        assert images[6] == {
            'id': 7, 'file_name': 'ünd two.avi/000001', 'height': 60, 'width': 86,
            'video': 'ünd two.avi', 'frame_index': 1,
        }  # fmt: skip


def test_videos_that_are_bad(models, tmp_path: Path) -> None:
    (tmp_path / 'none.mp4').write_bytes(b'no video at all')
    clip = video(tmp_path / 'z.mp4')
    report = predict_files(models['mmseg'], [tmp_path / 'none.mp4', clip], tmp_path / 'out')
    assert list(report.skipped) == [str(tmp_path / 'none.mp4')]
    assert 'is no video that OpenCV can read' in report.skipped[str(tmp_path / 'none.mp4')]
    assert files(tmp_path / 'out') == ['overlay/z.mp4']


class Camera:
    """Stands in for a camera: gives frames until somebody presses Ctrl-C."""

    def __init__(self, number: int) -> None:
        assert number == 2
        self.left = 3

    def isOpened(self) -> bool:
        return True

    def get(self, key: int) -> float:
        return {cv2.CAP_PROP_FPS: 0.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[key]

    def read(self) -> tuple[bool, np.ndarray]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return True, picture(60, 86)

    def release(self) -> None:
        pass


def test_camera_ends_with_an_interrupt(models, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cv2, 'VideoCapture', Camera)
        report = predict_files(models['mmseg'], ['camera:2'], tmp_path / 'out')
    assert (report.images, report.interrupted) == (3, False)
    capture = cv2.VideoCapture(str(tmp_path / 'out' / 'overlay' / 'camera_2.mp4'))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_interrupt_leaves_whole_files(models, album: Path, tmp_path: Path, monkeypatch) -> None:
    """Images that are finished, and a table of them; nothing of the video that was at work."""
    (album / 'bad.jpg').unlink()
    clip, calls, draw = video(tmp_path / 'clip.mp4'), [], draw_outcome

    def drawn(*args: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(run, 'draw_outcome', drawn)
    lines: list[str] = []
    inputs = [album / 'a 1.png', clip, album]
    with pytest.raises(KeyboardInterrupt):
        predict_files(
            models['mmdet'], inputs, tmp_path / 'out', KINDS['mmdet'], progress=lines.append
        )
    assert files(tmp_path / 'out') == ['overlay/a 1.png', 'predictions.csv', 'predictions.json']
    table = json.loads((tmp_path / 'out' / 'predictions.json').read_text('utf-8'))
    assert len(table['images']) == 3  # two of them frames
    assert 'interrupted: 1 of 7 inputs are finished, and their files whole' in lines
    assert list((tmp_path / 'out').rglob('.*')) == []


def test_image_that_the_model_fails_on(models, album: Path, tmp_path: Path) -> None:
    """Those beside it are predicted; where the first one fails, the model may be bad."""
    model = models['mmseg']

    def fail(_: object, args: tuple, given: dict) -> None:
        if given['data_samples'][0].ori_shape == (40, 120) or failing:
            raise ValueError('too wide')

    good = [album / name for name in ('a 1.png', 'grey.png')]
    failing = False
    handle = model.register_forward_pre_hook(fail, with_kwargs=True)
    try:
        wide = album / 'wide.tif'
        report = predict_files(model, [*good, wide], tmp_path / 'out', batch_size=2)
        assert list(report.skipped.values()) == [f'{wide}: the model fails (ValueError: too wide)']
        failing = True
        with pytest.raises(ValueError, match='too wide'):
            predict_files(model, good, tmp_path / 'other')
    finally:
        handle.remove()
    assert files(tmp_path / 'out') == ['overlay/a 1.png', 'overlay/grey.png']
    assert files(tmp_path / 'other') == []


def test_memory_that_does_not_suffice(models, album: Path, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')

    handle = models['mmseg'].backbone.register_forward_pre_hook(fail)
    try:
        for size, cure in ((4, '--batch-size 1'), (1, '--window 1024 1024')):
            with pytest.raises(UsageError, match=f'not enough memory .*: try {cure}'):
                predict_files(models['mmseg'], [album], tmp_path / 'out', batch_size=size)
    finally:
        handle.remove()


def test_table_is_kept_where_nothing_is_predicted(models, album: Path, tmp_path: Path) -> None:
    """A run that fails at its first image leaves no empty table, nor replaces a full one."""

    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    table = tmp_path / 'predictions.json'
    for before in (None, 'full'):
        handle = models['mmdet'].backbone.register_forward_pre_hook(fail)
        try:
            with pytest.raises(UsageError, match='not enough memory'):
                predict_files(models['mmdet'], [album], tmp_path, ['json', 'csv'], overwrite=True)
        finally:
            handle.remove()
        assert (table.read_text() if table.exists() else None) == before
        table.write_text('full')
    assert not (tmp_path / 'predictions.csv').exists()


@both
def test_windows(scope: str, models, tmp_path: Path) -> None:
    """A picture that one window covers gives what it gives as a whole."""
    write(tmp_path / 'large.png', picture(100, 150))
    for name, window in (('whole', None), ('one', (200, 200)), ('many', (64, 64))):
        report = predict_files(
            models[scope], [tmp_path / 'large.png'], tmp_path / name, KINDS[scope],
            window=window, batch_size=2, score_thr=0.1,
        )  # fmt: skip
        assert report.images == 1
    kind = {'mmseg': 'label-map/large.png', 'mmdet': 'predictions.csv'}[scope]
    whole, one, many = ((tmp_path / name / kind).read_bytes() for name in ('whole', 'one', 'many'))
    assert whole == one
    assert many != one
    assert read(tmp_path / 'many' / 'overlay' / 'large.png').shape == (100, 150, 3)


def test_single_channel_of_a_segmentor(models, tmp_path: Path, monkeypatch) -> None:
    """mmseg gives numbers with a fraction there."""
    result = inference(models['mmseg'], picture())
    result.pred_sem_seg = PixelData(data=(torch.rand(1, 61, 87) > 0.5).float())
    found = outcome_of(result)
    assert found.labels.dtype == np.uint8
    assert found.describe(['ground', 'road']).count('%') == 2


def test_label_maps_of_many_classes(tmp_path: Path) -> None:
    source = Source('a.png', 'a.png')
    labels = np.array([[0, 255, 256, 299]], np.uint16)
    writer = LabelMapWriter({source: tmp_path / 'a.png'}, [(1, 2, 3)] * 300)
    writer.write(Seen(source, None, (1, 4), ClassMap(labels)))
    writer.write(Seen(source, None, (1, 4), ClassMap(labels)))
    stored = cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, labels)
    few = ClassMap(np.array([[0, 1]], np.uint8))  # of the same model
    writer.write(Seen(source, None, (1, 2), few))
    assert cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_run_lengths_are_those_of_pycocotools() -> None:
    from pycocotools import mask as coco

    for _ in range(100):
        height, width = (int(side) for side in np.random.randint(1, 9, 2))
        pixels = np.random.rand(height, width) < np.random.choice([0, 0.1, 0.5, 0.9, 1])
        expected = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))['counts'].decode()
        assert encode(cut_out(pixels), height, width)['counts'] == expected


META = dict(classes=('sky', 'Straße'), palette=[(255, 0, 0), (0, 255, 0)])


def objects(masks: bool = True) -> Objects:
    pixels = np.zeros((200, 300), bool)
    pixels[60:120, 50:150] = True
    return Objects(
        200,
        300,
        np.array([[50, 60, 150, 120], [200, 20, 290, 199]], np.float32),
        np.array([0.9, 0.4], np.float32),
        np.array([1, 5]),  # of which the second has no name and no colour
        (cut_out(pixels), cut_out(np.zeros_like(pixels))) if masks else None,
    )


def test_drawing_of_objects() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    drawn = draw_outcome(image, objects(), META, opacity=0.5)
    assert (image == 100).all()
    assert drawn[90, 100].tolist() == [50, 178, 50]  # half of green
    assert drawn[90, 50].tolist() == [0, 255, 0]  # the border
    assert drawn[150, 20].tolist() == [100] * 3
    assert drawn[100, 290].tolist() == [128] * 3
    without = draw_outcome(image, objects(masks=False), META, opacity=0.5)
    assert without[90, 100].tolist() == [100] * 3
    assert draw_outcome(image[..., 0], objects(), META).shape == (200, 300, 3)


def test_drawing_of_classes_and_their_legend() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    labels = np.zeros((200, 300), np.uint8)
    labels[:, 150:] = 1
    plain = draw_outcome(image, ClassMap(labels), META, 0.5, legend=False)
    assert plain[5, 5].tolist() == [50, 50, 178]
    assert plain[5, 295].tolist() == [50, 178, 50]
    wide = draw_outcome(image, ClassMap(labels.astype(np.uint16)), META, 0.5, legend=False)
    np.testing.assert_array_equal(wide, plain)
    named = draw_outcome(image, ClassMap(labels), META, 0.5)
    changed = (named != plain).any(2)
    assert 0.01 < changed.mean() < 0.12
    assert changed[:60, :150].sum() == changed.sum()
    tiny = draw_outcome(image[:9, :9], ClassMap(labels[:9, :9]), META)
    assert tiny.std(axis=(0, 1)).max() == 0


def test_batches_of_iter_inference(models) -> None:
    """As many go together as have one size, in order."""
    sizes: list[int] = []
    handle = models['mmseg'].register_forward_pre_hook(
        lambda _, args, given: sizes.append(len(given['data_samples'])), with_kwargs=True
    )
    images = [picture(), picture(), picture(), picture(40, 50), picture()]
    try:
        found = list(iter_inference(models['mmseg'], images, batch_size=2))
    finally:
        handle.remove()
    assert sizes == [2, 1, 1, 1]
    for image, result in zip(images, found, strict=True):
        alone = inference(models['mmseg'], image).pred_sem_seg.data
        assert (result.pred_sem_seg.data == alone).float().mean() > 0.99
    with pytest.raises(UsageError, match='batch_size must be 1 or more, got 0'):
        next(iter_inference(models['mmseg'], images, batch_size=0))


def call(*arguments: object) -> int:
    main = runpy.run_path(str(ROOT / 'tools' / 'predict.py'))['main']
    return main([str(argument) for argument in arguments])


def test_tool(checkpoints, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    start = (CONFIGS['mmdet'], checkpoints['mmdet'], album, '--out', tmp_path / 'out')
    assert call(*start, '--save', 'overlay', 'csv', '--deploy', '--device', 'cpu') == 1
    text = capsys.readouterr().out
    assert 'images/s' in text
    assert '2 of 7 inputs are bad' in text
    assert 'predictions.csv' in text
    assert call(*start) == 2
    assert 'outputs are there already' in capsys.readouterr().err
    (album / 'bad.jpg').unlink()
    (album / 'größer' / 'cut.png').unlink()
    assert call(*start, '--overwrite', '--window', '64', '64') == 0


def test_errors_of_the_tool(
    checkpoints, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config, checkpoint, out = CONFIGS['mmseg'], checkpoints['mmseg'], ('--out', tmp_path / 'out')
    for arguments, message in (
        ((config, 'absent.pth', album, *out), 'error: checkpoint absent.pth does not exist'),
        ((config, checkpoint, tmp_path / 'no', *out), 'no does not exist (working folder'),
        ((config, checkpoint, album, *out, '--save', 'json'), 'save json is for a detector'),
        ((config, checkpoint, album, *out, '--overlap', '1'), 'overlap must be between 0 and 0.5'),
    ):
        assert call(*arguments) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / 'out').exists()
