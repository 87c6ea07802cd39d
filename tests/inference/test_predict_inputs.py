"""Which files inputs of a prediction stand for, and where their outputs go."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsw.apis import UsageError
from mmsw.apis.predict import PredictOptions, plan_prediction
from mmsw.apis.predict.inputs import find_sources
from mmsw.datasets import DataError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of all kinds below the working folder."""
    for name in (
        'one/a b.jpg', 'one/deep/a b.jpg', 'one/deep/ü.TIF', 'one/clip.mp4', 'one/notes.txt',
        'one/.hidden.jpg', 'one/.cache/x.jpg', 'two/a b.jpg', 'two/a b.png', 'two/raw.dat',
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'one' / 'deep' / 'up').symlink_to(tmp_path / 'one')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*inputs: str, **settings: object) -> list[str]:
    return [source.name for source in find_sources(inputs, **settings)]


def test_folders_are_searched(tree: Path) -> None:
    assert names('one') == ['a b.jpg', 'clip.mp4', 'deep/a b.jpg', 'deep/ü.TIF']
    assert [source.kind for source in find_sources(['one'])] == ['image', 'video', 'image', 'image']
    assert names('one/', skip=[tree / 'one' / 'deep']) == ['a b.jpg', 'clip.mp4']


def test_patterns(tree: Path) -> None:
    assert names('one/*') == ['a b.jpg', 'clip.mp4']
    assert names('one/**/*.jpg') == ['a b.jpg', 'deep/a b.jpg']
    assert names('two/*.dat') == ['raw.dat']  # of any suffix that is named
    assert names('tw*') == ['two/a b.jpg', 'two/a b.png']  # it matches a folder alone
    (tree / 'two' / 'x[1].jpg').touch()
    assert names('two/x[1].jpg') == ['x[1].jpg']  # a file of that name wins


def test_no_file_comes_twice_and_no_name(tree: Path) -> None:
    assert names('one/a b.jpg', 'one', str(tree / 'one')) == names('one')
    assert names('one', 'two') == [
        'one/a b.jpg', 'one/clip.mp4', 'one/deep/a b.jpg', 'one/deep/ü.TIF', 'two/a b.jpg',
        'two/a b.png',
    ]  # fmt: skip
    assert names('s3://bucket/a.jpg', 'two/a b.jpg') == ['a.jpg', 'a b.jpg']


def test_inputs_that_stand_for_nothing(tree: Path) -> None:
    for inputs, error, message in (
        ([], UsageError, 'nothing to predict'),
        (['empty'], UsageError, r'folder empty has no image or video in it: searched for \.jpg, '),
        (['empty/*.jpg'], UsageError, r'pattern empty/\*\.jpg has no match'),
        (['one/*.t?t'], UsageError, 'has no image or video among its matches'),
        (['absent.jpg'], DataError, r'absent\.jpg does not exist .*a quoted pattern'),
        (['camera:0', 'one'], UsageError, 'camera:0 goes on until it is stopped'),
    ):
        with pytest.raises(error, match=message):
            find_sources(inputs)
    assert find_sources(['camera:1'])[0].name == 'camera_1'


def outputs(plan, kind: str) -> list[str]:
    paths = {'overlay': plan.overlays, 'label-map': plan.label_maps}[kind]
    return [path.relative_to(plan.out / kind).as_posix() for path in paths.values()]


def test_outputs_are_named_as_the_inputs_are(tree: Path) -> None:
    plan = plan_prediction(['one'], 'out', 'mmseg')
    assert outputs(plan, 'overlay') == ['a b.jpg', 'clip.mp4', 'deep/a b.jpg', 'deep/ü.png']
    assert outputs(plan, 'label-map') == ['a b.png', 'clip.mp4', 'deep/a b.png', 'deep/ü.png']
    plan = plan_prediction(['two', 'two/*.dat'], 'out', 'mmseg')
    assert outputs(plan, 'overlay') == ['a b.jpg', 'a b.png', 'raw.png']
    assert outputs(plan, 'label-map') == ['a b.jpg.png', 'a b.png.png', 'raw.png']
    (tree / 'two' / 'a b.png.jpg').touch()  # whose label map would be called as one of these
    plan = plan_prediction(['two'], 'out', 'mmseg')
    assert outputs(plan, 'label-map') == ['a b.jpg.png', 'a b.png.png', 'a b.png.jpg.png']
    assert not (tree / 'out').exists()


def test_nothing_is_overwritten_unless_asked(tree: Path) -> None:
    (tree / 'out' / 'overlay').mkdir(parents=True)
    (tree / 'out' / 'overlay' / 'a b.png').touch()
    with pytest.raises(
        UsageError, match=r'1 of 2 outputs are there already \(.*a b\.png\).*--over'
    ):
        plan_prediction(['two'], 'out', 'mmseg')
    plan_prediction(['two'], 'out', 'mmseg', overwrite=True)
    plan_prediction(['two'], 'out', 'mmseg', PredictOptions(('label-map',)))
    (tree / 'out' / 'predictions.csv').touch()
    with pytest.raises(UsageError, match=r'predictions\.csv'):
        plan_prediction(['two'], 'out', 'mmdet', PredictOptions(('csv',)))
    with pytest.raises(UsageError, match=r'a b\.png would be replaced by its output'):
        plan_prediction(['out/overlay/a b.png'], 'out', 'mmseg', overwrite=True)
    # what was written into a folder of inputs before is no input
    assert [s.name for s in plan_prediction(['.'], 'out', 'mmseg', overwrite=True).sources] == [
        'one/a b.jpg', 'one/clip.mp4', 'one/deep/a b.jpg', 'one/deep/ü.TIF', 'two/a b.jpg',
        'two/a b.png',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('scope', 'options', 'message'),
    [
        ('mmseg', dict(save=('json',)), 'save json is for a detector, and the config is of a segm'),
        ('mmdet', dict(save=('label-map',)), 'a detector, which has overlay, json, csv'),
        ('mmdet', dict(save=('picture',)), 'save must be some of overlay, label-map, json, csv'),
        ('mmpretrain', {}, "default_scope='mmpretrain'"),
        ('mmseg', dict(score_thr=1.5), 'score_thr must be between 0 and 1, got 1.5'),
        ('mmseg', dict(opacity=-1), 'opacity must be between 0 and 1, got -1'),
        ('mmseg', dict(batch_size=0), 'batch_size must be 1 or more, got 0'),
        ('mmseg', dict(window=(512, 3)), r'window must be 32 pixels or more each way, got \(512'),
        ('mmseg', dict(overlap=0.6), 'overlap must be between 0 and 0.5, got 0.6'),
    ],
)
def test_options_that_make_no_sense(tree: Path, scope: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_prediction(['one'], 'out', scope, PredictOptions(**options))


def test_folder_that_cannot_be_written(tree: Path) -> None:
    with pytest.raises(UsageError, match=r'notes\.txt is a file, expected a folder'):
        plan_prediction(['two'], 'one/notes.txt', 'mmseg')
