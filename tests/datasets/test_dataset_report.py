"""What tools/check_dataset.py says of images with label maps, good and broken ones."""

from __future__ import annotations

import json
import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_helpers import ROOT, SEGMENTOR, exif_picture, picture
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mmsw.apis import UsageError, load_config
from mmsw.apis.dataset_report import (
    DatasetReport,
    Extent,
    check_outputs,
    report_dataset,
    write_report,
)

LOADING = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
PIPELINE = [*LOADING, dict(type='RandomCrop', crop_size=(200, 300)), dict(type='PackSegInputs')]
TEST_PIPELINE = [
    LOADING[0],
    dict(type='Resize', scale=(20, 20)),
    LOADING[1],
    dict(type='PackSegInputs'),
]


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Six training and three validation images of 60 x 40 pixels, in the classes 0 and 1."""
    for split, count in (('train', 6), ('val', 3)):
        for kind in ('img', 'ann'):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(count):
            labels = np.zeros((40, 60), np.uint8)
            labels[:20] = 1
            cv2.imwrite(str(tmp_path / 'img' / split / f'{index}.jpg'), picture(40, 60))
            cv2.imwrite(str(tmp_path / 'ann' / split / f'{index}.png'), labels)
    return tmp_path


def config_of(root: Path, pipeline: list = PIPELINE, **settings) -> Config:
    """A config without a model; settings are of both data sets."""

    def loader(split: str, steps: list) -> dict:
        dataset = dict(
            type='BaseSegDataset',
            data_root=str(root),
            metainfo=dict(classes=('background', 'cell')),
            data_prefix=dict(img_path=f'img/{split}', seg_map_path=f'ann/{split}'),
            pipeline=steps,
            serialize_data=False,  # collecting garbage takes half a second
        )
        return dict(batch_size=1, dataset={**dataset, **settings})

    return Config(
        dict(
            default_scope='mmseg',
            train_dataloader=loader('train', pipeline),
            val_dataloader=loader('val', TEST_PIPELINE),
            test_dataloader=loader('val', TEST_PIPELINE),
            val_evaluator=dict(type='IoUMetric'),
        )
    )


def found(report: DatasetReport, level: str = 'error') -> dict[tuple[str, str], str]:
    """Loader and kind -> line, of one level."""
    return {
        (item.loader, item.kind): ' '.join([item.line(), *item.details])
        for item in report.findings
        if item.level == level
    }


def test_good_data(scenes: Path, tmp_path: Path) -> None:
    seen = []
    report = report_dataset(config_of(scenes), progress=lambda *state: seen.append(state))
    assert found(report) == {}
    (crop,) = found(report, 'warning').values()
    assert 'the training crop (300 x 200); the median is 60 x 40' in crop
    assert ('train_dataloader', 'images', 6, 6) in seen
    train, val = (item.statistics for item in report.surveys)
    assert (train.images, train.read, train.complete) == (6, 6, True)
    assert train.shares == [0.5, 0.5]
    assert val.sizes == {(60, 40): 3}
    assert val.loaded == {'3 channels, uint8': 3}
    out = tmp_path / 'out'
    assert sorted(write_report(report, out)) == sorted(path.name for path in out.iterdir())
    sheet = cv2.imread(str(out / 'contact_sheet.png'))
    assert sheet.shape[1] == 1320
    assert np.ptp(sheet) > 200
    content = json.loads((out / 'dataset_report.json').read_text())
    assert content['format'] == 'mmsw.dataset_report/1'
    assert content['loaders']['test_dataloader'] == dict(same_as='val_dataloader')
    classes = content['loaders']['train_dataloader']['label_maps']['classes']
    assert [item['pixels'] for item in classes] == [7200, 7200]
    assert '0 errors, 1 warning' in (out / 'dataset_report.txt').read_text()
    check_outputs(out)  # of an earlier report


def test_a_sample_is_drawn_by_its_seed(scenes: Path) -> None:
    def shown(seed: int) -> list[int]:
        report = report_dataset(config_of(scenes), Extent(sample=2, seed=seed))
        assert report.surveys[0].statistics.read == 2
        return sorted(index for _, index in report.surveys[0].shown)

    assert shown(0) == shown(0)
    assert len({tuple(shown(seed)) for seed in range(4)}) > 1


def test_broken_files_are_named(scenes: Path) -> None:
    images, labels = scenes / 'img' / 'train', scenes / 'ann' / 'train'
    whole = (images / '0.jpg').read_bytes()
    (images / '0.jpg').write_bytes(whole[: len(whole) // 2])
    (images / '1.jpg').write_bytes(b'')
    cv2.imwrite(str(labels / '2.png'), np.zeros((30, 60), np.uint8))
    cv2.imwrite(str(labels / '3.png'), np.zeros((40, 60, 3), np.uint8))
    exif_picture(images / '4.jpg', (40, 60), 6)
    shutil.copy(images / '5.jpg', images / '6.JPG')
    report = report_dataset(config_of(scenes), Extent(sample=1))  # headers tell whom to suspect
    broken = found(report)['train_dataloader', 'broken files']
    assert broken.startswith('error: train_dataloader: 5 images cannot be used: ')
    for text in (
        'img/train/0.jpg is cut off',
        'img/train/1.jpg is empty',
        'is 60 pixels wide and 30 high',
        'has shape (40, 60, 3)',
        'EXIF orientation 6 turned it',
    ):
        assert text in broken
    warning = found(report, 'warning')['train_dataloader', 'check before a run']
    assert 'leaves out 1 of the 7 pictures' in warning


def test_missing_files_are_told_once(scenes: Path) -> None:
    (scenes / 'ann' / 'train' / '2.png').unlink()
    errors = found(report_dataset(config_of(scenes)))
    assert list(errors) == [('train_dataloader', 'check before a run')]
    assert 'ann/train/2.png' in errors['train_dataloader', 'check before a run']


def redraw(root: Path, change: Callable[[np.ndarray], np.ndarray], ending: str = '.png') -> None:
    for path in root.glob('ann/*/*.png'):
        labels = change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        path.unlink()
        cv2.imwrite(str(path.with_suffix(ending)), labels)


def test_masks_of_0_and_255(scenes: Path) -> None:
    redraw(scenes, lambda labels: labels * 255)
    errors = found(report_dataset(config_of(scenes)))
    assert list(errors) == [
        ('train_dataloader', 'ignored pixels'),
        ('val_dataloader', 'ignored pixels'),
    ]
    line = errors['train_dataloader', 'ignored pixels']
    assert 'no pixel is of class cell, and 50% of the pixels are ignored' in line
    assert 'own_data.binary_masks=True' in line
    mapping = dict(type='MapLabelValues', mapping={255: 1})
    train, val = [*LOADING, mapping, PIPELINE[-1]], [*TEST_PIPELINE[:3], mapping, PIPELINE[-1]]
    config = config_of(scenes, train)
    config.val_dataloader.dataset.pipeline = config.test_dataloader.dataset.pipeline = val
    report = report_dataset(config)
    assert report.findings == []
    assert report.surveys[0].statistics.shares == [0.5, 0.5]


def test_labels_that_are_no_class(scenes: Path, tmp_path: Path) -> None:
    redraw(scenes, lambda labels: np.where(labels == 1, 11, 1).astype(np.uint8))
    report = report_dataset(config_of(scenes))
    line = found(report)['train_dataloader', 'label values']
    assert '6 of the 6 label maps that were read hold labels that are no class (11 in 6)' in line
    assert 'has the value 11 in 1200 of its pixels' in line  # as a run says it
    assert 'own_data.ignore=(11,)' in line
    assert 'no class (11)' in report.text()
    ignoring = config_of(scenes)
    ignoring.val_evaluator.ignore_index = 11
    assert ('val_dataloader', 'label values') not in found(report_dataset(ignoring))


def test_grey_levels(scenes: Path) -> None:
    redraw(scenes, lambda labels: np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1)))
    assert (
        'look like grey levels'
        in found(report_dataset(config_of(scenes)))['train_dataloader', 'label values']
    )


def test_one_class_and_absent_ones(scenes: Path) -> None:
    redraw(scenes, lambda labels: labels * 0)
    assert found(report_dataset(config_of(scenes))) == {
        ('train_dataloader', 'one class'): 'error: train_dataloader: in the 6 label maps that were '
        'read, every pixel is of class background: nothing else can be learned'
    }
    sampled = report_dataset(config_of(scenes), Extent(sample=2))
    assert found(sampled) == {}
    assert 'background (try --all)' in found(sampled, 'warning')['train_dataloader', 'one class']
    names = ('background', 'cell', 'wall')
    redraw(scenes, lambda labels: np.indices(labels.shape)[0].astype(np.uint8) % 2)
    config = config_of(scenes, metainfo=dict(classes=names))
    warning = found(report_dataset(config), 'warning')['train_dataloader', 'absent classes']
    assert '1 class has no pixel: wall; it cannot be learned' in warning
    cv2.imwrite(str(scenes / 'ann' / 'val' / '0.png'), np.full((40, 60), 2, np.uint8))
    error = found(report_dataset(config))['train_dataloader', 'absent classes']
    assert error.endswith('wall; it cannot be learned, but the validation or test data have it')
    sampled = found(report_dataset(config, Extent(sample=2)), 'warning')
    assert (
        'in the 2 images that were read (try --all)'
        in sampled['train_dataloader', 'absent classes']
    )


def test_imbalance_comes_with_weights(scenes: Path) -> None:
    def rare(labels: np.ndarray) -> np.ndarray:
        labels[:] = 0
        labels[0, :4] = 1
        return labels

    redraw(scenes, rare)
    line = found(report_dataset(config_of(scenes)), 'warning')['train_dataloader', 'imbalance']
    assert 'background has 599 times as many pixels as cell' in line
    assert "class_weight=[0.1, 1.92], and reduction='none'" in line


def test_duplicates(scenes: Path) -> None:
    train, val = scenes / 'img' / 'train', scenes / 'img' / 'val'
    shutil.copy(train / '0.jpg', val / '1.jpg')
    (val / '2.jpg').write_bytes((train / '3.jpg').read_bytes() + b'behind the end')
    messages = [
        item.line() for item in report_dataset(config_of(scenes)).findings if item.level == 'error'
    ]
    assert len(messages) == 2
    assert '1 of 3 images are among those of train_dataloader (the same files' in messages[0]
    assert '(the same pixels in other files' in messages[1]
    config = config_of(scenes)
    config.test_dataloader = config.train_dataloader
    assert ('test_dataloader', 'duplicates') in found(report_dataset(config))


class TwiceTheLabel(BaseTransform):
    def transform(self, results: dict) -> dict:
        results['gt_seg_map'] = results['gt_seg_map'] * 2
        return results


class NeedsAScale(BaseTransform):
    def transform(self, results: dict) -> dict:
        return dict(results, twice=results['scale'] * 2)


def test_labels_of_other_peoples_transforms_are_counted_but_not_judged(scenes: Path) -> None:
    for kind in (TwiceTheLabel, NeedsAScale):
        TRANSFORMS.register_module(module=kind, force=True)
    own = [dict(type='NeedsAScale'), LOADING[1], dict(type='TwiceTheLabel')]
    pipeline = [*TEST_PIPELINE[:2], *own, dict(type='PackSegInputs')]
    report = report_dataset(config_of(scenes, pipeline))
    assert found(report) == {}
    assert np.flatnonzero(report.surveys[0].statistics.labels.pixels).tolist() == [0, 2]
    assert 'label (2)' in report.text()


def test_wrappers(scenes: Path) -> None:
    config = config_of(scenes)
    inner = config.train_dataloader.dataset
    both = dict(type='ConcatDataset', datasets=[inner, config.val_dataloader.dataset])
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=both)
    train = report_dataset(config).surveys[0].statistics
    assert (train.images, train.read) == (9, 9)


def test_heads_are_compared_too(scenes: Path) -> None:
    config = load_config(SEGMENTOR)
    for key, value in config_of(scenes).items():
        config[key] = value
    config.model.auxiliary_head = None
    errors = found(report_dataset(config))
    assert 'model.decode_head.num_classes=150' in errors['train_dataloader', 'check before a run']
    config.model.decode_head.num_classes = 'none'
    assert ('model', 'heads') in found(report_dataset(config), 'warning')


def call(*arguments: object) -> int:
    main = runpy.run_path(str(ROOT / 'tools' / 'check_dataset.py'))['main']
    return main([str(argument) for argument in arguments])


def test_tool(scenes: Path, tmp_path: Path, capsys) -> None:
    path, out = tmp_path / 'config.py', tmp_path / 'out'
    config_of(Path('elsewhere')).dump(path)
    assert call(path) == 2
    assert 'data folder elsewhere does not exist' in capsys.readouterr().err
    common = (path, '--data-root', scenes, '--out', out)
    assert call(*common, '--sample', 2, '--cfg-options', 'train_dataloader.batch_size=2') == 0
    printed = capsys.readouterr()
    assert 'train_dataloader: 6 images (BaseSegDataset), 2 read' in printed.out
    assert 'contact_sheet.png' in printed.out
    assert printed.err == ''  # no progress where there is no terminal
    misspelt = 'train_dataloader.dataset.img_sufix=.jpg'
    assert call(*common, '--cfg-options', misspelt) == 2
    assert 'img_sufix' in capsys.readouterr().err
    redraw(scenes, lambda labels: labels + 1)
    assert call(*common, '--all') == 1
    assert 'error: train_dataloader: 6 of the 6 label maps' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--sample', '0'], 'error: --sample must be at least 1, got 0'),
        (['--seed', '-1'], 'error: --seed must be at least 0, got -1'),
        ([], 'error: config file nothing.py does not exist'),
    ],
)
def test_bad_arguments(arguments: list, message: str, capsys) -> None:
    assert call('nothing.py', *arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / 'contact_sheet.png').write_text('mine')
    with pytest.raises(UsageError, match=r'contact_sheet\.png there is of no earlier report'):
        check_outputs(tmp_path)


def test_one_sigmoid_channel(scenes: Path) -> None:
    """The model tells two classes apart, of which one has a name."""
    config = load_config(SEGMENTOR)
    for key, value in config_of(scenes, metainfo=dict(classes=('cell',))).items():
        config[key] = value
    config.model.auxiliary_head = None
    config.model.decode_head |= dict(num_classes=2, out_channels=1, threshold=0.5)
    config.model.decode_head.loss_decode.use_sigmoid = True
    report = report_dataset(config)
    assert found(report) == {}
    assert 'label (1)' in report.text()


def test_names_that_are_no_text(scenes: Path, tmp_path: Path) -> None:
    for kind, ending in ((b'img', b'.jpg'), (b'ann', b'.png')):
        folder = os.path.join(os.fsencode(scenes), kind, b'train')
        os.rename(os.path.join(folder, b'0' + ending), os.path.join(folder, b'\xff' + ending))
    (scenes / 'img' / 'train' / os.fsdecode(b'\xff.jpg')).write_bytes(b'no picture')
    report = report_dataset(config_of(scenes))
    assert '\\udcff.jpg' in report.text()
    write_report(report, tmp_path / 'out')


def test_deep_and_skipped_images(scenes: Path) -> None:
    images = scenes / 'img' / 'train'
    deep = picture(40, 60).astype(np.uint16)[..., 0] * 256
    assert cv2.imencode('.png', deep)[1].tofile(str(images / '0.jpg')) is None
    (images / '1.jpg').write_bytes(b'')
    skipping = [dict(type='LoadValidImageFromFile', ignore_empty=True), *PIPELINE[1:]]
    warnings = found(report_dataset(config_of(scenes, skipping)), 'warning')
    line = warnings['train_dataloader', 'depth']
    assert line.startswith('warning: train_dataloader: images of more than 8 bits per channel')
    assert 'is skipped by LoadValidImageFromFile' in warnings['train_dataloader', 'skipped files']
