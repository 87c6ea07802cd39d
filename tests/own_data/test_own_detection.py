"""What ``own_data`` of a detection becomes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from own_data_helpers import coco_content, load, saved, unfilled

from mmsw.apis.own_data import detection as detection_module
from mmsw.apis.own_data import fill_in

BOXES, MASKS = 'own_retinanet_sw_mini', 'own_mask_rcnn_sw_t'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def test_everything_is_filled_in(detection: Path) -> None:
    cfg = load(MASKS, detection)
    assert 'own_data' not in cfg
    for loader, split in zip(LOADERS, ('train', 'val', 'val'), strict=True):
        dataset = cfg[loader].dataset
        assert (dataset.type, dataset.data_root) == ('CocoDataset', str(detection))
        assert dataset.ann_file == f'annotations/{split}.json'
        assert dataset.data_prefix == dict(img=split)
        assert dataset.metainfo.classes == ('cell', 'other')
        assert dataset.pipeline[2 if loader != 'train_dataloader' else 1].with_mask is True
    for key in ('val_evaluator', 'test_evaluator'):
        assert cfg[key].ann_file == str(detection / 'annotations' / 'val.json')
        assert cfg[key].metric == ['bbox', 'segm']
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 2
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (640, 640)
    assert cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    assert saved(cfg).to_dict() == cfg.to_dict(), 'the saved config is complete'


def test_boxes_alone(detection: Path) -> None:
    cfg = load(MASKS, detection, masks=False)
    assert cfg.model.roi_head.mask_head is None
    assert cfg.model.roi_head.mask_roi_extractor is None
    assert cfg.val_evaluator.metric == 'bbox'
    assert cfg.train_dataloader.dataset.pipeline[1].with_mask is False
    assert load(BOXES, detection, image_size=(96, 128)).val_dataloader.dataset.pipeline[
        1
    ].scale == (128, 96)


def test_a_test_set_of_its_own(detection: Path) -> None:
    own = dict(test__images='train', test__annotations='annotations/train.json')
    cfg = load(BOXES, detection, **own)
    assert cfg.test_dataloader.dataset.ann_file == 'annotations/train.json'
    assert cfg.test_dataloader.dataset.test_mode is True
    assert cfg.test_evaluator.ann_file.endswith('train.json')
    assert cfg.val_evaluator.ann_file.endswith('val.json')


def test_every_head_of_a_cascade_gets_the_classes(detection: Path) -> None:
    cfg = Config(unfilled(MASKS).to_dict())
    heads = cfg.model.roi_head
    heads.bbox_head = [dict(num_classes=80), dict(num_classes=80)]
    heads.mask_head = [dict(num_classes=80)]
    heads.semantic_head = dict(num_classes=183)
    cfg.model.rpn_head.num_classes = 1
    cfg.own_data.data_root = str(detection)
    fill_in(cfg)
    assert [head.num_classes for head in [*heads.bbox_head, *heads.mask_head]] == [2, 2, 2]
    assert (heads.semantic_head.num_classes, cfg.model.rpn_head.num_classes) == (183, 1)


def test_classes_are_put_in_the_order_of_the_file(detection: Path) -> None:
    classes = load(BOXES, detection, classes=['other', 'cell']).train_dataloader.dataset.metainfo
    assert classes.classes == ('cell', 'other')
    colors = [(1, 1, 1), (2, 2, 2)]
    cfg = load(BOXES, detection, classes=['other', 'cell'], palette=colors)
    assert list(cfg.train_dataloader.dataset.metainfo.palette) == colors[::-1]
    one = load(BOXES, detection, classes=['other'])
    assert one.model.bbox_head.num_classes == 1


def test_a_category_that_only_holds_others_is_left_out(
    tmp_path: Path, detection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(detection_module, 'print_log', lambda text, *_: said.append(text))
    categories = [
        dict(id=0, name='cells', supercategory='none'),
        dict(id=1, name='red', supercategory='cells'),
        dict(id=2, name='person', supercategory='person'),  # of itself, as in COCO
    ]
    path = tmp_path / 'roboflow.json'
    path.write_text(json.dumps(coco_content(2, categories)))
    cfg = load(BOXES, detection, train__annotations=str(path))
    assert cfg.train_dataloader.dataset.metainfo.classes == ('red', 'person')
    (text,) = said
    assert text.startswith(f'own_data.classes: cells of {path} only holds other categories')


def test_a_share_of_the_training_images_validates(detection: Path) -> None:
    cfg = load(BOXES, detection, val=0.25)
    train, val, test = (cfg[loader].dataset for loader in LOADERS)
    assert sorted([*train.indices, *val.indices]) == [0, 1, 2, 3]
    assert (len(train.indices), test.indices) == (3, val.indices)
    assert cfg.val_evaluator.ann_file is None, 'else images that train would count as missed'
    assert cfg.val_dataloader.dataset.pipeline[-1].meta_keys[-1] == 'instances'
