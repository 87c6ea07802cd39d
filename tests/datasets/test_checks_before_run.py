"""What is wrong with config and data is said when a run starts, in one line."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from data_helpers import BOX, DETECTOR, ROOT, SEGMENTOR, annotation
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from tiny_run import TinyData, tiny_config
from torch import nn
from torch.utils.data import IterableDataset

from mmsw.apis import UsageError, build_runner, load_config, register_toolbox
from mmsw.apis.checks import label_maps
from mmsw.apis.checks.class_names import check_class_names
from mmsw.apis.checks.masks import check_masks
from mmsw.datasets import DataError, LoadValidAnnotations

pytestmark = pytest.mark.usefixtures('plain_config_text')
OWN_CLASSES = {
    'train_dataloader.dataset.type': 'BaseSegDataset',
    'val_dataloader.dataset.type': 'BaseSegDataset',
    'train_dataloader.dataset.reduce_zero_label': False,
    'val_dataloader.dataset.reduce_zero_label': False,
}


def segmentation_runner(ade: Path, folder: Path, classes: object, **options) -> Runner:
    """The test's segmentor on two classes of one's own."""
    settings = dict(OWN_CLASSES)
    for loader in ('train_dataloader', 'val_dataloader'):
        settings[f'{loader}.dataset.metainfo'] = dict(classes=classes)
    for head in ('decode_head', 'auxiliary_head'):
        settings[f'model.{head}.num_classes'] = 2
    return build_runner(
        SEGMENTOR, folder / 'work', cfg_options={**settings, **options}, data_root=ade
    )


def draw(ade: Path, *values: int, split: str = '*') -> list[Path]:
    """Fill the label maps with values in turn."""
    paths = sorted(ade.glob(f'annotations/{split}/*.png'))
    for path in paths:
        cv2.imwrite(str(path), np.resize(np.array(values, np.uint8), (70, 90)))
    return paths


@pytest.mark.parametrize(
    ('classes', 'options', 'message'),
    [
        ('cell', {}, r"metainfo\.classes is the text 'cell', .*: write \('cell',\) with a comma"),
        (('a', 'b', 'a'), {}, r'metainfo\.classes names a more than once'),
        (
            ('a', 'b'),
            {'train_dataloader.dataset.metainfo.palette': [[0, 0, 0]]},
            r'metainfo\.palette has 1 colours, but metainfo\.classes 2 names: list one colour',
        ),
        (
            ('cell',),
            {'train_dataloader.dataset.type': 'ADE20KDataset'},
            r'metainfo\.classes \(cell\) has names that ADE20KDataset does not have',
        ),
        (
            'cell',
            {'train_dataloader.dataset.type': 'ADE20KDataset'},
            r"metainfo\.classes is the text 'cell'",
        ),
    ],
)
def test_class_names(classes: object, options: dict, message: str, ade: Path, tmp_path) -> None:
    runner = segmentation_runner(ade, tmp_path, classes, **options)
    with pytest.raises(UsageError, match=rf'^train_dataloader\.dataset: {message}'):
        runner.train()


def test_class_names_in_a_file(ade: Path, tmp_path: Path) -> None:
    draw(ade, 0, 1)
    path = tmp_path / 'classes.txt'
    path.write_text('a\nb\n')
    runner = segmentation_runner(ade, tmp_path, str(path))
    runner.build_train_loop(runner._train_loop)


def test_names_of_other_toolboxes_may_repeat() -> None:
    """mmpretrain's ImageNet has a crane that flies and one that lifts."""
    other = SimpleNamespace(metainfo=dict(classes=('crane', 'crane')))
    check_class_names(other, 'train_dataloader')
    other.metainfo['classes'] = 'crane'
    with pytest.raises(UsageError, match=r"the text 'crane'"):
        check_class_names(other, 'train_dataloader')


def test_class_names_of_a_detector(coco, tmp_path: Path) -> None:
    options = {'train_dataloader.dataset.dataset.metainfo.classes': 'square'}
    runner = build_runner(DETECTOR, tmp_path / 'work', cfg_options=options, data_root=coco())
    with pytest.raises(UsageError, match=r"metainfo\.classes is the text 'square'"):
        runner.train()


def test_heads_are_compared_before_training(coco, tmp_path: Path) -> None:
    options = {'model.bbox_head.num_classes': 80}
    runner = build_runner(DETECTOR, tmp_path / 'work', cfg_options=options, data_root=coco())
    with pytest.raises(UsageError, match=r'^train_dataloader has 1 class .*num_classes=80'):
        runner.train()


def test_strange_label_in_validation(ade: Path, tmp_path: Path, capsys) -> None:
    """Through the tool, before any training."""
    draw(ade, 0, 1, 150)
    path = draw(ade, 151, split='validation')[1]
    main = runpy.run_path(str(ROOT / 'tools' / 'train.py'))['main']
    places = ['--data-root', str(ade), '--work-dir', str(tmp_path / 'work')]
    assert main([str(SEGMENTOR), *places]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('error: label map ')
    assert 'has the value 151 in 6300 of its pixels, but the data set has 150 classes' in line
    assert str(path.parent) in line
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_workers_know_the_classes(ade: Path, tmp_path: Path, monkeypatch) -> None:
    """A training by iterations starts them before any label map is looked at."""
    draw(ade, 0, 1)
    monkeypatch.setattr(label_maps, 'MOST_MAPS', 1)
    cv2.imwrite(str(ade / 'annotations' / 'training' / '1.png'), np.full((70, 90), 7, np.uint8))
    options = {'train_dataloader.num_workers': 1}
    runner = segmentation_runner(ade, tmp_path, ('a', 'b'), **options)
    with pytest.raises(DataError, match=r'training/1\.png .* has the value 7 in 6300 of its'):
        runner.train()


def test_masks_drawn_with_0_and_255(ade: Path, tmp_path: Path, monkeypatch) -> None:
    draw(ade, 0, 255)
    runner = segmentation_runner(ade, tmp_path, ('ground', 'cell'))
    found = []
    monkeypatch.setattr(runner.logger, 'warning', lambda text, *_: found.append(text))
    runner.train()
    told = [text for text in found if 'label maps looked at' in text]
    assert [text.partition(':')[0] for text in told] == ['train_dataloader', 'val_dataloader']
    assert all('no pixel is of class cell, and 50%' in text for text in told)


def mask_rcnn(root: Path, folder: Path, **options) -> Runner:
    cfg = load_config(ROOT / 'configs' / 'demo' / 'mask_rcnn_sw_mini_scenes.py', data_root=root)
    for loader, split in (('train_dataloader', 'train'), ('val_dataloader', 'val')):
        cfg[loader].update(num_workers=0, persistent_workers=False)
        cfg[loader].dataset.update(
            ann_file=f'annotations/{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=('square',)),
        )
    cfg.val_evaluator.ann_file = str(root / 'annotations' / 'val.json')
    cfg.model.backbone.update(
        arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]), big_kernels=(7, 7, 5, 3), init_cfg=None
    )
    cfg.model.neck.in_channels = [8] * 4
    cfg.model.roi_head.bbox_head.num_classes = cfg.model.roi_head.mask_head.num_classes = 1
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.custom_hooks, cfg.param_scheduler = [], []
    return build_runner(cfg, folder / 'work', cfg_options=options)


def test_objects_without_masks(coco, tmp_path: Path) -> None:
    bare = [annotation(0, 0), dict(annotation(1, 0), segmentation=[]), annotation(2, 1, BOX)]
    del bare[2]['segmentation']
    root = coco(annotations=bare)
    with pytest.raises(DataError) as caught:
        mask_rcnn(root, tmp_path).train()
    message = str(caught.value)
    assert message.startswith('train_dataloader: 2 of the 3 annotations looked at in ')
    assert 'train.json have no mask (segmentation is missing or empty): add the masks' in message
    assert '\n' not in message
    cure = {
        'model.roi_head.mask_head': None,
        'model.roi_head.mask_roi_extractor': None,
        'train_dataloader.dataset.pipeline.1.with_mask': False,
    }
    assert all(f'{key}={value}' in message for key, value in cure.items())
    coco(annotations=bare, split='val')
    with pytest.raises(DataError, match=r'^val_dataloader: .*pipeline\.2\.with_mask=False'):
        mask_rcnn(coco(split='val', annotations=bare), tmp_path).train()
    cure['val_dataloader.dataset.pipeline.2.with_mask'] = False
    cure['val_evaluator.metric'] = 'bbox'
    mask_rcnn(root, tmp_path, **cure).train()


def draw_masks(results: dict) -> dict:
    """A transform of a user, which makes masks of boxes."""
    return results


def test_transforms_of_others_may_make_masks() -> None:
    register_toolbox(Config(dict(default_scope='mmdet')))
    with DefaultScope.overwrite_default_scope('mmdet'):
        loader = LoadValidAnnotations(with_bbox=True, with_mask=True)

    class Boxes(TinyData):
        def __init__(self, *steps: object) -> None:
            super().__init__()
            self.pipeline = Compose(steps)

        def get_data_info(self, index: int) -> dict:
            return dict(instances=[dict(bbox=[index, 1, 2, 3])])

    check_masks(Boxes(draw_masks, loader), nn.Module(), 'train_dataloader')
    with pytest.raises(DataError, match='4 of the 4 annotations looked at in its list have no'):
        check_masks(Boxes(loader, draw_masks), nn.Module(), 'train_dataloader')


def test_boxes_alone_need_no_masks(coco, tmp_path: Path) -> None:
    bare = [dict(annotation(index, index), segmentation=[]) for index in range(2)]
    runner = build_runner(DETECTOR, tmp_path / 'work', data_root=coco(annotations=bare))
    runner.build_train_loop(runner._train_loop)


def test_crowds_alone(coco, tmp_path: Path) -> None:
    crowd = [dict(annotation(index, index), iscrowd=1) for index in range(2)]
    runner = build_runner(DETECTOR, tmp_path / 'work', data_root=coco(annotations=crowd))
    with pytest.raises(DataError, match=r'no object of square .*; crowds \(iscrowd\) do not count'):
        runner.train()


@DATASETS.register_module()
class EndlessData(IterableDataset):
    """Says nothing about itself, not even how many images it has."""

    def __init__(self, lazy_init: bool = False) -> None:
        del lazy_init
        self.items = TinyData()

    def __iter__(self):
        while True:
            yield from (self.items[index] for index in range(len(self.items)))


def test_iterable_data(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.train_dataloader = dict(
        batch_size=2,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=None,
        dataset=dict(type='EndlessData'),
    )
    cfg.default_hooks.logger = None  # mmengine's asks how many images there are
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 2
