"""What ``own_data`` of a segmentation becomes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from own_data_helpers import CLASSES, load, saved, unfilled, write_picture

from mmsw.apis import UsageError, load_config
from mmsw.apis.data import iter_datasets
from mmsw.apis.own_data import fill_in
from mmsw.apis.own_data.heads import set_number_of_classes

MINI = 'own_segmentation_sw_mini'
LARGE = 'own_segmentation_sw_t'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def kinds(steps: list) -> list[str]:
    return [step['type'] for step in steps]


def test_everything_is_filled_in(segmentation: Path) -> None:
    cfg = load(LARGE, segmentation, classes=CLASSES, crop_size=(96, 128))
    assert 'own_data' not in cfg
    assert "'OwnData'" not in str(cfg.to_dict())
    for loader, split in zip(LOADERS, ('train', 'val', 'val'), strict=True):
        dataset = cfg[loader].dataset
        assert dataset.type == 'BaseSegDataset'
        assert dataset.data_root == str(segmentation) == cfg.data_root
        folders = dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}')
        assert dataset.data_prefix == folders
        assert dataset.metainfo.classes == CLASSES
        assert len(dataset.metainfo.palette) == 3
        assert dataset.reduce_zero_label is False
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 3
    assert cfg.model.data_preprocessor['size'] == (96, 128)
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(96, 128), stride=(64, 85))
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert pipeline[kinds(pipeline).index('RandomCrop')].crop_size == (96, 128)
    assert kinds(cfg.val_dataloader.dataset.pipeline) == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'PackSegInputs',
    ]
    assert [step.scale_factor for step in cfg.tta_pipeline[1].transforms[0]] == [0.75, 1.0, 1.25]
    (sizes,) = [step.transforms for step in pipeline if step.type == 'RandomChoice']
    factors = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert [step.scale_factor for (step,) in sizes] == factors
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.default_hooks.checkpoint.save_best == 'mIoU'
    assert saved(cfg).to_dict() == cfg.to_dict(), 'the saved config is complete'
    assert load_config(saved(cfg)).to_dict() == cfg.to_dict()


def test_a_child_config_and_options_say_the_same(segmentation: Path, tmp_path: Path) -> None:
    path = tmp_path / 'mine.py'
    path.write_text(
        f'_base_ = "mmsw::{MINI}.py"\n'
        f'own_data = dict(data_root={str(segmentation)!r}, classes={CLASSES!r}, max_iters=77)\n'
    )
    child = load_config(path)
    options = {'own_data.classes': list(CLASSES), 'max_iters': 77}
    by_options = load_config(unfilled(MINI), options, segmentation)
    assert child.to_dict() == by_options.to_dict() | {
        'model': child.model.to_dict()  # a name with a colon does not change the scope
    }
    assert child.model.decode_head.num_classes == 3
    assert options == {'own_data.classes': list(CLASSES), 'max_iters': 77}


def test_other_options_win_over_what_was_derived(segmentation: Path) -> None:
    options = {'own_data.classes': CLASSES, 'crop_size': 64, 'batch_size': 2}
    options |= {'train_cfg.val_interval': 7, 'optim_wrapper.optimizer.lr': 0.5}
    cfg = load_config(unfilled(MINI), options, segmentation)
    assert cfg.model.data_preprocessor['size'] == (64, 64)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 2)
    assert (cfg.train_cfg.val_interval, cfg.optim_wrapper.optimizer.lr) == (7, 0.5)


def test_a_test_set_of_its_own_with_and_without_labels(segmentation: Path) -> None:
    own = dict(classes=CLASSES, test__images='images/train', test__labels='labels/train')
    cfg = load(MINI, segmentation, **own)
    assert cfg.test_dataloader.dataset.data_prefix.img_path == 'images/train'
    assert cfg.val_dataloader.dataset.data_prefix.img_path == 'images/val'
    own.pop('test__labels')
    cfg = load(MINI, segmentation, **own)
    assert cfg.test_dataloader.dataset.data_prefix == dict(img_path='images/train')
    assert kinds(cfg.test_dataloader.dataset.pipeline) == ['LoadImageFromFile', 'PackSegInputs']
    assert cfg.test_evaluator.format_only is True
    assert 'format_only' not in cfg.val_evaluator


def test_void_labels_and_binary_masks(segmentation: Path) -> None:
    step = dict(type='MapLabelValues', mapping={}, ignore=(11,))
    cfg = load(MINI, segmentation, classes=CLASSES, ignore=(11, 255))
    for loader in LOADERS:
        pipeline = cfg[loader].dataset.pipeline
        assert pipeline[kinds(pipeline).index('LoadAnnotations') + 1] == step
    stages = cfg.tta_pipeline[1].transforms
    assert stages[3] == [step], 'a stage of its own, no alternative'
    cfg = load(MINI, segmentation, classes=CLASSES, ignore=11, reduce_zero_label=True)
    assert cfg.val_dataloader.dataset.pipeline[2].ignore == (10,), 'labels are one lower by then'
    cfg = load(MINI, segmentation, classes=CLASSES[:2], binary_masks=True)
    assert cfg.val_dataloader.dataset.pipeline[2] == dict(step, mapping={255: 1}, ignore=())
    assert saved(cfg).val_dataloader == cfg.val_dataloader


def test_images_may_be_resized_and_never_mirrored(segmentation: Path) -> None:
    cfg = load(MINI, segmentation, classes=CLASSES, image_scale=(128, 64), flip=False)
    train = cfg.train_dataloader.dataset.pipeline
    resize = train[kinds(train).index('RandomResize')]
    assert (resize.scale, resize.ratio_range) == ((128, 64), (0.75, 1.5))
    assert 'RandomFlip' not in kinds(train)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (128, 64)
    sizes, flips = cfg.tta_pipeline[1].transforms[:2]
    assert [step.scale for step in sizes] == [(96, 48), (128, 64), (160, 80)]
    assert [step.prob for step in flips] == [0.0]


def test_several_endings_in_upper_and_lower_case(segmentation: Path, tmp_path: Path) -> None:
    root = tmp_path / 'data'
    shutil.copytree(segmentation, root)
    write_picture(root / 'images' / 'train' / '7.png')
    (root / 'images' / 'train' / '0.jpg').rename(root / 'images' / 'train' / '0.JPG')
    cfg = load(MINI, root, classes=CLASSES, image_suffix=('.jpg', '.png'))
    joined = cfg.train_dataloader.dataset
    assert joined.type == 'ConcatDataset'
    assert [part.img_suffix for part in joined.datasets] == ['.JPG', '.jpg', '.png']
    assert all(len(part.pipeline) > 5 for part in joined.datasets)
    assert cfg.val_dataloader.dataset.img_suffix == '.jpg'
    cfg = load(MINI, root, classes=CLASSES, image_suffix=('.jpg', '.png'), val=0.4)
    parts = [part for loader in LOADERS[:2] for part in iter_datasets(cfg[loader].dataset)]
    taken = [(part.img_suffix, index) for part in parts for index in part.indices]
    assert sorted(taken) == [('.JPG', 0), ('.jpg', 0), ('.jpg', 1), ('.jpg', 2), ('.png', 0)]


def test_a_share_of_the_training_images_validates(segmentation: Path) -> None:
    cfg = load(MINI, segmentation, classes=CLASSES, val=0.25)
    train, val, test = (cfg[loader].dataset for loader in LOADERS)
    assert len(train.indices) == 3
    assert sorted([*train.indices, *val.indices]) == [0, 1, 2, 3]
    assert test.indices == val.indices
    assert val.data_prefix == train.data_prefix
    (segmentation / 'list.txt').write_text('0\n2\n')
    with pytest.raises(UsageError, match=r'does not go with own_data\.train\.list'):
        load(MINI, segmentation, classes=CLASSES, val=0.25, train__list='list.txt')


def test_images_in_a_list(segmentation: Path) -> None:
    (segmentation / 'some.txt').write_text('0\n2\n')
    cfg = load(MINI, segmentation, classes=CLASSES, train__list='some.txt', iterations=(1, 9999))
    assert cfg.train_dataloader.dataset.ann_file == 'some.txt'
    assert cfg.train_cfg.max_iters == 50  # 25 times two images, and then a round number


def test_what_a_config_says_itself_stays(segmentation: Path) -> None:
    cfg = Config(unfilled(MINI).to_dict())
    own = dict(type='BaseSegDataset', data_root='other', pipeline=[dict(type='A', crop_size=3)])
    placeholder = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=placeholder)
    cfg.val_dataloader.dataset = own
    cfg.model.decode_head = [
        dict(type='A', num_classes=5),
        dict(
            type='Mask2FormerHead',
            num_classes=150,
            loss_cls=dict(type='CrossEntropyLoss', class_weight=[1.0] * 150 + [0.1]),
        ),
    ]
    cfg.model.test_cfg = dict(mode='whole')
    cfg.own_data.update(data_root=str(segmentation), classes=CLASSES)
    fill_in(cfg)
    assert cfg.train_dataloader.dataset.type == 'RepeatDataset'
    assert cfg.train_dataloader.dataset.dataset.img_suffix == '.jpg'
    assert cfg.val_dataloader.dataset == own
    assert [head['num_classes'] for head in cfg.model.decode_head] == [3, 3]
    assert cfg.model.decode_head[1].loss_cls.class_weight == [1.0, 1.0, 1.0, 0.1]
    assert cfg.model.test_cfg == dict(mode='whole')


def test_a_head_may_have_several_losses() -> None:
    head = dict(
        num_classes=150,
        loss_decode=[dict(type='CrossEntropyLoss'), dict(type='DiceLoss')],
        loss_cls=dict(class_weight=[1.0] * 150 + [0.1]),
    )
    set_number_of_classes(dict(decode_head=head), 'segmentation', 2)
    assert head['num_classes'] == 2
    assert head['loss_decode'] == [dict(type='CrossEntropyLoss'), dict(type='DiceLoss')]
    assert head['loss_cls']['class_weight'] == [1.0, 1.0, 0.1]
