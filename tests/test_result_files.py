"""Files of a test run, one per image: label maps and pictures; tests without truth."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from config_helpers import DETECTOR, MINI, build_model
from mmengine.config import Config
from PIL import Image

from mmsw.apis import UsageError, build_test_runner, load_config
from mmsw.apis.result_files import label_map_names, picture_folders
from mmsw.apis.testing import prepare_test
from mmsw.errors import DataError, MmswError

ONLY_IMAGES = dict(_delete_=True, img_path='images')
pytestmark = pytest.mark.usefixtures('plain_config_text')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of one name in two folders, with and without truth, and untrained checkpoints."""
    root = tmp_path_factory.mktemp('results')
    rng = np.random.default_rng(0)
    images = []
    for index, name in enumerate(('a/0', 'b/0')):
        for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
            path = root / 'ade' / kind / 'validation' / f'{name}.{suffix}'
            path.parent.mkdir(parents=True)
            size = (40, 48, 3)[: 3 if kind == 'images' else 2]
            cv2.imwrite(str(path), rng.integers(0, 151, size, dtype=np.uint8))
        images.append(dict(id=index, file_name=f'{name}.jpg', height=40, width=48))
    shutil.copytree(root / 'ade' / 'images', root / 'bare' / 'images')
    shutil.copytree(root / 'ade' / 'images' / 'validation', root / 'coco' / 'val')
    (root / 'coco' / 'annotations').mkdir()
    text = json.dumps(dict(images=images, categories=[dict(id=1, name='square')]))
    (root / 'coco' / 'annotations' / 'val.json').write_text(text)
    for config in (MINI, DETECTOR):
        model = build_model(load_config(config))
        torch.save({'state_dict': model.state_dict()}, root / f'{config.stem}.pth')
    return root


def scores_of(folder: Path, config: Path | Config, data: str, work_dir: Path, **wishes) -> dict:
    weights = folder / f'{Path(config.filename if isinstance(config, Config) else config).stem}.pth'
    runner = build_test_runner(config, weights, work_dir, data_root=folder / data, **wishes)
    return runner.test()


def files_of(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


def test_label_maps_and_pictures_keep_the_folders(folder: Path, tmp_path: Path) -> None:
    """The folder of the training images, which the fixture lacks, is not asked for."""
    wishes = dict(out=tmp_path / 'out', show_dir=tmp_path / 'shown')
    scores = scores_of(folder, MINI, 'ade', tmp_path / 'work', **wishes)
    assert 'mIoU' in scores
    assert files_of(tmp_path / 'out') == ['a/0.png', 'b/0.png']
    shown = files_of(tmp_path / 'shown')  # mmseg puts a number behind the name
    assert [name[:12] for name in shown] == ['a/test_0.jpg', 'b/test_0.jpg']


def test_label_maps_are_those_that_mmseg_writes(folder: Path, tmp_path: Path) -> None:
    """Also where the config names the folder, which mmseg would write to without folders."""
    from mmseg.evaluation import IoUMetric

    written = []
    process = IoUMetric.process

    def note(metric: IoUMetric, batch: dict, samples: list) -> None:
        theirs = copy.copy(metric)
        theirs.output_dir, theirs.format_only = str(tmp_path), True
        process(theirs, batch, samples)
        written.append(np.array(Image.open(tmp_path / '0.png')))
        process(metric, batch, samples)

    options = {'test_evaluator.output_dir': str(tmp_path / 'own')}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IoUMetric, 'process', note)
        scores_of(folder, MINI, 'ade', tmp_path / 'work', cfg_options=options)
    assert files_of(tmp_path / 'own') == ['a/0.png', 'b/0.png']
    for name, theirs in zip('ab', written, strict=True):
        ours = np.array(Image.open(tmp_path / 'own' / name / '0.png'))
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    assert ours.min() >= 1  # numbers of the annotations, where 0 is no class


@pytest.mark.parametrize('tta', [False, True])
def test_segmentor_without_truth(folder: Path, tmp_path: Path, tta: bool) -> None:
    cfg = load_config(MINI)
    cfg.tta_pipeline[1].transforms[0] = [dict(type='Resize', scale_factor=1.0)]
    wishes = dict(out=tmp_path / 'out', show_dir=tmp_path / 'shown', no_truth=True, tta=tta)
    assert scores_of(folder, cfg, 'bare', tmp_path / 'work', **wishes) == {}
    assert files_of(tmp_path / 'out') == ['a/0.png', 'b/0.png']
    assert len(files_of(tmp_path / 'shown')) == 2


def test_metric_that_only_writes_needs_no_truth(folder: Path, tmp_path: Path) -> None:
    options = {'test_evaluator.format_only': True, 'test_evaluator.output_dir': str(tmp_path / 'o')}
    assert scores_of(folder, MINI, 'bare', tmp_path / 'work', cfg_options=options) == {}
    assert files_of(tmp_path / 'o') == ['a/0.png', 'b/0.png']


def test_detector_without_truth(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / 'new' / 'boxes.pkl'
    wishes = dict(out=out, show_dir=tmp_path / 'shown', no_truth=True)
    assert scores_of(folder, DETECTOR, 'coco', tmp_path / 'work', **wishes) == {}
    assert files_of(tmp_path / 'shown') == ['a/0.jpg', 'b/0.jpg']
    paths = [item['img_path'] for item in pickle.loads(out.read_bytes())]
    assert [path[-7:] for path in paths] == ['a/0.jpg', 'b/0.jpg']


@pytest.mark.parametrize(
    ('wishes', 'message'),
    [
        (dict(no_truth=True), r'--no-truth\): say where predictions go'),
        (dict(), r'no label maps: \S+annotations/validation does not exist\. .* --no-truth and'),
        (
            dict(cfg_options={'test_dataloader.dataset.data_prefix': ONLY_IMAGES}),
            r'0\.jpg has no label map in its data set: name .*seg_map_path.* --no-truth of',
        ),
        (
            dict(cfg_options={'test_evaluator.format_only': True}),
            r'IoUMetric .* has format_only=True, and nowhere to write: .* --out PATH',
        ),
    ],
)  # fmt: skip
def test_what_truth_is_needed_for_is_said(
    folder: Path, tmp_path: Path, wishes: dict, message: str
) -> None:
    with pytest.raises(MmswError, match=message) as caught:
        scores_of(folder, MINI, 'bare', tmp_path / 'work', **wishes)
    assert '\n' not in str(caught.value)


def test_image_that_the_hook_cannot_draw_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmseg's hook reads a file with OpenCV, which knows no six channels."""
    from mmseg.visualization import SegLocalVisualizer

    def fail(*_: object, **__: object) -> None:
        raise ValueError('six channels')

    monkeypatch.setattr(SegLocalVisualizer, 'add_datasample', fail)
    wishes = dict(no_truth=True, show_dir=tmp_path / 'shown')
    with pytest.raises(
        DataError, match=r'a/0\.jpg cannot be drawn by SegVis.*six channels\): leave'
    ):
        scores_of(folder, MINI, 'bare', tmp_path / 'work', **wishes)


def test_places_that_cannot_be_written_to_are_refused_first(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.touch()
    for wishes in (dict(out=file), dict(show_dir=file / 'deep' / 'er'), dict(work_dir=file)):
        wishes = {'work_dir': tmp_path / 'work', **wishes}
        with pytest.raises(UsageError, match=r'^--[\w-]+ \S+: \S+file is a file, expected a fold'):
            scores_of(folder, MINI, 'ade', **wishes)
    (tmp_path / 'a.pkl').mkdir()
    with pytest.raises(UsageError, match=r'--out \S+a\.pkl is a folder, expected a file'):
        scores_of(folder, DETECTOR, 'coco', tmp_path / 'work', out=tmp_path / 'a.pkl')
    for place in (file / 'a.pkl', '/proc/absent/a.pkl'):
        with pytest.raises(UsageError, match='--out, folder'):
            scores_of(folder, DETECTOR, 'coco', tmp_path / 'work', out=place)
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('paths', 'names', 'folders'),
    [
        (['x/0.jpg', 'x/1.jpg'], ['0.png', '1.png'], ['', '']),
        (['x/a/0.jpg', 'x/b/1.jpg'], ['0.png', '1.png'], ['', '']),
        (['x/a/0.jpg', 'x/b/0.jpg'], ['a/0.png', 'b/0.png'], ['a', 'b']),
        (['x/0.jpg', 'x/b/c/0.jpg'], ['0.png', 'b/c/0.png'], ['.', 'b/c']),
        (['x/0.jpg', 'x/0.png'], ['0.jpg.png', '0.png.png'], ['', '']),
        (['x/0.jpg', 'x/0.jpg'], ['0.png', '0.png'], ['', '']),
        (['/x/0.jpg', '/y/0.jpg'], ['x/0.png', 'y/0.png'], ['x', 'y']),
    ],
)
def test_every_image_has_a_file(paths: list[str], names: list[str], folders: list[str]) -> None:
    assert [label_map_names(paths)[path] for path in paths] == names
    assert [picture_folders(paths)[path] for path in paths] == folders


def test_steps_that_load_truth_are_found_in_every_spelling() -> None:
    from mmseg.datasets import LoadAnnotations

    steps = [
        dict(type='LoadImageFromFile'),
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='Resize', scale=(8, 8))],
                [dict(type='mmseg.LoadAnnotations'), dict(type=LoadAnnotations)],
                [dict(type='mmsw.datasets.LoadValidAnnotations'), dict(type='PackSegInputs')],
            ],
        ),
    ]
    prefix = dict(img_path='images', seg_map_path='annotations')
    dataset = dict(type='A', data_prefix=prefix, pipeline=steps)
    cfg = Config(dict(test_dataloader=dict(dataset=dataset), test_evaluator=dict(type='B')))
    prepare_test(cfg, 'mmseg', out='out', no_truth=True)
    dataset = cfg.test_dataloader.dataset
    assert dataset.data_prefix == dict(img_path='images')
    _, tta = dataset.pipeline
    assert tta.transforms == [[dict(type='Resize', scale=(8, 8))], [dict(type='PackSegInputs')]]
    assert cfg.test_evaluator == []
    with pytest.raises(UsageError, match=r'\(--no-truth\) works for mmseg and mmdet'):
        prepare_test(cfg, 'mmengine', out='a.pkl', no_truth=True)
