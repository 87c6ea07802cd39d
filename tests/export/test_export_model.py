"""A user's way: export, look at the report, run the file, draw it; and all that can go wrong."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from run_tool import tool
from small_models import (
    DETECTOR,
    PIPELINE,
    SEGMENTOR,
    WHOLE,
    model_of,
    picture,
    save,
    write_pictures,
)
from torch import nn

from mmsw.apis import (
    ExportReport,
    UsageError,
    export_model,
    inference,
    init_model,
    load_exported,
    predict_files,
)
from mmsw.apis.export import export
from mmsw.errors import CheckpointError, DataError

for package in ('onnx', 'onnxscript', 'onnxruntime'):
    pytest.importorskip(package, reason=f'onnx: {package} is not installed')


class Exported(NamedTuple):
    """A model, its checkpoint, its file, and what was told of it."""

    model: nn.Module
    checkpoint: Path
    path: Path
    report: ExportReport
    lines: list[str]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def exported(folder: Path, config: Path, **options: object) -> Exported:
    lines: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model = model_of(config, options.get('cfg_options'))
        checkpoint = save(model, folder / 'checkpoint.pth')
        path = folder / 'model.onnx'
        report = export_model(config, checkpoint, path, progress=lines.append, **options)
    return Exported(model, checkpoint, path, report, lines)


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp('segmentor')
    photos = write_pictures(folder / 'photos', (61, 87), (70, 40))
    return exported(folder, SEGMENTOR, cfg_options=WHOLE, verify=photos)


@pytest.fixture(scope='module')
def detector(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """For one size: 64 x 96 pixels."""
    return exported(tmp_path_factory.mktemp('detector'), DETECTOR, size=(64, 96))


def test_the_report_tells_what_was_made(segmentor: Exported) -> None:
    report, found = segmentor.report, segmentor.report.verification
    assert report.passed
    assert found.images == '2 given images'
    assert len({(height, width) for _, height, width in found.sizes}) == 3
    assert any(height % 2 and width % 2 and height != width for _, height, width in found.sizes)
    assert {number for number, *_ in found.sizes} == {1, 2}
    assert 0 < found.errors['logits'].share < 1e-5
    assert found.results.total == 61 * 87 + 70 * 40
    assert report.contents.bytes == segmentor.path.stat().st_size
    assert report.folded_weights.zeros <= report.contents.zeros
    text = str(report)
    for piece in (
        'onnx in float32, for onnxruntime',
        'any height and width, any number at once',
        f'{report.parameters:,} of the folded model',
        'Conv',
        '2 given images',
        'of the largest',
        f'of {61 * 87 + 70 * 40:,} pixels',
        'times as long',
        f'wrote {segmentor.path}',
    ):
        assert piece in ' '.join(text.split()), piece
    assert max(map(len, text.splitlines())) <= 100
    assert segmentor.lines[0] == f'loading {segmentor.checkpoint}'
    assert len(segmentor.lines) == 4


def test_a_file_tells_all_that_it_needs(segmentor: Exported) -> None:
    meta = load_exported(segmentor.path).metadata
    assert meta.classes == segmentor.model.dataset_meta['classes']
    assert meta.config == 'upernet_mini_ade20k.py'
    mean = segmentor.model.data_preprocessor.mean.flatten()
    assert torch.equal(torch.tensor(meta.image.mean), mean)
    assert meta.image.channel_order == 'RGB'
    assert meta.density == 1.0
    assert meta.settings['mode'] == 'whole'


@pytest.mark.parametrize('threads', [None, 1])
def test_the_file_gives_what_the_model_gives(segmentor: Exported, threads: int | None) -> None:
    """At sizes that nothing was traced or compared at, in batches."""
    model = load_exported(segmentor.path, threads)
    for size in ((33, 200), (77, 41), (128, 96)):
        images = [picture(*size) for _ in range(3)]
        expected = inference(segmentor.model, images, keep_logits=True)
        found = model(images, keep_logits=True, batch_size=2)
        for one, other in zip(found, expected, strict=True):
            error = (one.seg_logits.data - other.seg_logits.data).abs().max()
            assert error < 2e-5 * other.seg_logits.data.abs().max()
            assert type(one) is type(other)
            assert one.pred_sem_seg.data.dtype == other.pred_sem_seg.data.dtype
            assert (one.pred_sem_seg.data == other.pred_sem_seg.data).float().mean() > 0.999
            assert one.ori_shape == size


def test_a_detector_of_one_size(detector: Exported) -> None:
    """An image that fills it has the objects that the model finds."""
    assert detector.report.passed
    model = load_exported(detector.path)
    assert model.metadata.size == (64, 96)
    for size in ((64, 96), (128, 192)):
        image = picture(*size)
        found = model(image).pred_instances
        expected = inference(detector.model, image).pred_instances
        assert len(expected) > 2
        torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
        assert torch.equal(found.labels, expected.labels)
    for size in ((20, 400), (300, 30)):  # what does not fill it
        boxes = model(picture(*size)).pred_instances.bboxes
        assert boxes.min() >= 0
        assert (boxes[:, 2:] <= torch.tensor([size[1], size[0]]) + 1e-3).all()


def test_the_file_is_drawn_like_a_checkpoint(
    segmentor: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photos = write_pictures(tmp_path / 'photos', (61, 87), (40, 90))
    words = [photos, '--save', 'overlay', 'label-map']
    assert tool('predict', segmentor.path, *words, '--out', tmp_path / 'file') == 0
    assert 'written: ' in capsys.readouterr().out
    predict_files(segmentor.model, [photos], tmp_path / 'model', ['overlay', 'label-map'])
    names = sorted(p.relative_to(tmp_path / 'model') for p in (tmp_path / 'model').rglob('*.png'))
    assert len(names) == 4
    for name in names:
        assert (tmp_path / 'file' / name).read_bytes() == (tmp_path / 'model' / name).read_bytes()


def test_windows_of_a_file(segmentor: Exported, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / 'photos', (90, 130))
    for name, model in (('file', load_exported(segmentor.path)), ('model', segmentor.model)):
        predict_files(model, [photos], tmp_path / name, ['label-map'], window=(64, 64))
    parts = [(tmp_path / name / 'label-map' / '0.png').read_bytes() for name in ('file', 'model')]
    assert parts[0] == parts[1]


def test_objects_of_a_file_are_written(detector: Exported, tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / 'photos', (64, 96))
    options = ['--save', 'overlay', 'json', 'csv', '--score-thr', '0.1']
    assert tool('predict', detector.path, photos, *options, '--out', tmp_path / 'out') == 0
    assert (tmp_path / 'out' / 'overlay' / '0.png').is_file()
    assert len((tmp_path / 'out' / 'predictions.csv').read_text().splitlines()) > 1


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--deploy'], '--deploy cannot be used with .*: it is folded already'),
        (['--cfg-options', 'a=1'], '--cfg-options cannot be used with'),
        (['--device', 'cuda'], '--device cuda cannot be used with .*: it runs on the CPU'),
        (['--save', 'json'], 'save json is for a detector'),
    ],
)
def test_what_makes_no_sense_for_a_file(
    words: list, message: str, segmentor: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photos = write_pictures(tmp_path / 'photos', (40, 50))
    assert tool('predict', segmentor.path, photos, '--out', tmp_path / 'out', *words) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert re.search(message, error)
    assert not (tmp_path / 'out').exists()


def copies(source: Path) -> Callable:
    """What writes a file that is there already, whatever it is asked to write."""
    return lambda program, path, **options: shutil.copy(source, path)


def test_a_file_that_fails_the_comparison_is_not_left(
    segmentor: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """A file of other weights: exit code 1, a report, and nothing in the folder."""
    monkeypatch.setattr(export, 'write_program', copies(segmentor.path))
    torch.manual_seed(3)
    model = init_model(SEGMENTOR, cfg_options=WHOLE)
    checkpoint = save(model, tmp_path / 'other.pth')
    out = tmp_path / 'out' / 'model.onnx'
    options = ['--cfg-options', 'model.test_cfg.mode=whole']
    assert tool('export', SEGMENTOR, checkpoint, '--out', out, *options) == 1
    text = capsys.readouterr().out
    assert 'FAILED               logits: the largest error is' in text
    assert text.endswith(f'{out} was not written: its results are not those of the model\n')
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ('error', 'code', 'message'),
    [
        (
            OSError(errno.ENOSPC, 'No space left on device'),
            2,
            r'written \(No space left on device\)',
        ),
        (KeyboardInterrupt(), 130, 'interrupted'),
    ],
    ids=['full disk', 'Ctrl-C'],
)
@pytest.mark.parametrize('place', ['write_program', 'put_files'])
def test_nothing_is_left_of_an_export_that_stops(
    place: str,
    error: BaseException,
    code: int,
    message: str,
    segmentor: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Not even the folders that were made for it."""

    def stop(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(export, 'write_program', copies(segmentor.path))
    monkeypatch.setattr(export, place, stop)
    words = [
        SEGMENTOR,
        segmentor.checkpoint,
        '--no-verify',
        '--out',
        tmp_path / 'a' / 'b' / 'm.onnx',
    ]
    assert tool('export', *words) == code
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_without_a_comparison(
    segmentor: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, 'write_program', copies(segmentor.path))
    path = tmp_path / 'model.onnx'
    settings = dict(verify=False, cfg_options=WHOLE, progress=lambda line: None)
    report = export_model(SEGMENTOR, segmentor.checkpoint, path, **settings)
    assert report.passed
    assert report.verification is None
    assert report.timing is None
    assert 'compared             no' in str(report)
    with pytest.raises(UsageError, match='is there already'):
        export_model(SEGMENTOR, segmentor.checkpoint, path, **settings)
    export_model(SEGMENTOR, segmentor.checkpoint, path, overwrite=True, **settings)
    assert [item.name for item in tmp_path.iterdir()] == ['model.onnx']


def test_a_checkpoint_of_another_config(detector: Exported, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='does not fit the EncoderDecoder of the config'):
        export_model(SEGMENTOR, detector.checkpoint, tmp_path / 'm.onnx', progress=print)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(size=(96, 96)), 'slides a window of 64 x 64 pixels: give --size 64 64'),
        (
            dict(cfg_options={PIPELINE: [dict(type='LoadImageFromFile'), dict(type='RGB2Gray')]}),
            'has RGB2Gray as step 2',
        ),
        (dict(precision='int8'), 'int8 takes the ranges of values from images, .* --calibrate DIR'),
    ],
    ids=['crop', 'pipeline', 'int8'],
)
def test_a_model_that_has_no_such_file(
    options: dict, message: str, segmentor: Exported, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(SEGMENTOR, segmentor.checkpoint, tmp_path / 'm.onnx', **options)
    assert not list(tmp_path.iterdir())


def test_an_image_that_does_not_decode(
    segmentor: Exported, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """In the comparison nothing is written; in a prediction the others are drawn."""
    photos = write_pictures(tmp_path / 'photos', (61, 87))
    (photos / 'bad.png').write_bytes(b'no image')
    out = tmp_path / 'out'
    words = [SEGMENTOR, segmentor.checkpoint, '--out', out / 'm.onnx', '--verify', photos]
    assert tool('export', *words) == 2
    assert 'bad.png' in capsys.readouterr().err
    assert not out.exists()
    assert tool('predict', segmentor.path, photos, '--out', out) == 1
    assert [item.name for item in (out / 'overlay').iterdir()] == ['0.png']
    with pytest.raises(DataError, match=r'bad\.png'):
        load_exported(segmentor.path)(photos / 'bad.png')


def test_images_that_a_file_does_not_take(segmentor: Exported) -> None:
    model = load_exported(segmentor.path)
    with pytest.raises(DataError, match=r'takes images of 33 x 33 pixels or more, got 20 x 50'):
        model(picture(20, 50))
    with pytest.raises(UsageError, match='expected a path, or a uint8 array'):
        model(np.zeros((40, 40, 3), np.float64))
    with pytest.raises(UsageError, match='this one has 5'):
        model(picture(40, 40, 5))


@pytest.mark.parametrize('share', [0.0, 0.3, 0.98])
def test_a_file_that_is_cut_off(share: float, segmentor: Exported, tmp_path: Path) -> None:
    content = segmentor.path.read_bytes()
    path = tmp_path / 'cut.onnx'
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r'cut\.onnx (cannot be read|has no metadata)'):
        load_exported(path)


def test_an_exported_file_is_no_checkpoint(segmentor: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'model\.onnx is an exported file: tools/predict\.py'):
        init_model(SEGMENTOR, segmentor.path)
    with pytest.raises(UsageError, match='is an exported file'):
        export_model(SEGMENTOR, segmentor.path, tmp_path / 'm.onnx', progress=lambda line: None)


def test_files_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    node = helper.make_node('Relu', ['image'], ['y'])
    kinds = [value(name, TensorProto.FLOAT, [1]) for name in ('image', 'y')]
    graph = helper.make_graph([node], 'g', kinds[:1], kinds[1:])
    path = tmp_path / 'foreign.onnx'
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.save(model, path)
    with pytest.raises(DataError, match=r'foreign\.onnx has no metadata of mmsw'):
        load_exported(path)
    printed: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.getLogger('torch.export'), 'handle', printed.append)
    for name, content in (('x.pt2', b'PK'), ('x.xml', b'<net/>')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            load_exported(tmp_path / name)
    assert not printed
    with pytest.raises(UsageError, match=r'none\.onnx does not exist'):
        load_exported(tmp_path / 'none.onnx')
    with pytest.raises(UsageError, match=r'm\.pth is no exported file by its name'):
        load_exported(tmp_path / 'm.pth')
    assert tool('predict', path, tmp_path, '--out', tmp_path / 'out') == 2
    assert 'has no metadata of mmsw' in capsys.readouterr().err


def test_inputs_may_follow_options(segmentor: Exported, tmp_path: Path) -> None:
    """Of the tool for predictions, with a file as with a config."""
    photos = write_pictures(tmp_path / 'photos', (40, 50))
    assert tool('predict', segmentor.path, '--out', tmp_path / 'out', photos) == 0
