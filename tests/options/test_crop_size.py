"""``crop_size`` given as an option: every place that it reaches, and what it is refused for."""

from __future__ import annotations

from typing import Any

import pytest
from config_helpers import RECIPE
from mmengine.config import Config

from mmsw.apis import load_config
from mmsw.apis.options import changes as options_changes
from mmsw.apis.options import set_crop_size
from mmsw.errors import UsageError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(options_changes, 'print_log', lambda text, *_: found.append(text))
    return found


def config(*train: dict, scope: str = 'mmseg', **settings: Any) -> Config:
    loader = dict(dataset=dict(type='Data', pipeline=list(train)))
    return Config(dict(default_scope=scope, train_dataloader=loader, **settings))


def crop(size: Any, **settings: Any) -> dict:
    return dict(type='RandomCrop', crop_size=size, **settings)


def steps(cfg: Config) -> list:
    return cfg.train_dataloader.dataset.pipeline


def test_a_recipe_becomes_the_published_one_for_larger_crops(said: list[str]) -> None:
    cfg = load_config(RECIPE, {'crop_size': 640})
    assert steps(cfg)[3].crop_size == cfg.model.data_preprocessor.size == (640, 640)
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(640, 640), stride=(426, 426))
    for loader in ('val_dataloader', 'test_dataloader'):
        assert cfg[loader].dataset.pipeline[1].scale == (2560, 640)
    assert steps(cfg)[2].scale == cfg.test_pipeline[1].scale == (2560, 640)
    scales = [step.scale for step in cfg.tta_pipeline[1].transforms[0]]
    assert (scales[0], scales[2], scales[-1]) == ((1280, 320), (2560, 640), (4480, 1120))
    (text,) = said
    assert text.startswith('crop_size=640: set in 14 places: train_dataloader.dataset.pipeline.3.')
    assert 'train_pipeline' not in text.replace('.pipeline', '')
    assert load_config(RECIPE, {'crop_size': 512}).to_dict() == load_config(RECIPE).to_dict()


def test_images_keep_their_size_where_the_crop_fits_into_them(said: list[str]) -> None:
    cfg = load_config(RECIPE, {'crop_size': [256, 384], 'model.test_cfg.stride': (9, 9)})
    assert steps(cfg)[2].scale == (2048, 512)
    assert steps(cfg)[3].crop_size == cfg.model.test_cfg.crop_size == (256, 384)
    assert cfg.model.test_cfg.stride == (9, 9)  # of the user
    assert 'stride' not in said[0]


def test_crops_in_wrappers_and_choices() -> None:
    inner = dict(type='RandomChoice', transforms=[[crop((64, 64))], [crop((64, 64))]])
    wrapped = dict(
        type='MultiImageMixDataset',
        dataset=dict(type='ConcatDataset', datasets=[dict(pipeline=[inner]), dict(pipeline=[])]),
        pipeline=[dict(type='RandomMosaic', img_scale=(64, 64)), dict(type='Pad', size=(64, 64))],
    )
    switch = dict(type='PipelineSwitchHook', switch_pipeline=[crop((64, 64))])
    cfg = config(
        model=dict(backbone=dict(img_size=(64, 64)), test_cfg=dict(mode='whole')),
        custom_hooks=[switch],
    )
    cfg.train_dataloader = dict(dataset=wrapped)
    changes = set_crop_size(cfg, (32, 48))
    choice = cfg.train_dataloader.dataset.dataset.datasets[0].pipeline[0]
    assert [branch[0].crop_size for branch in choice.transforms] == [(32, 48)] * 2
    mosaic, pad = cfg.train_dataloader.dataset.pipeline
    assert (mosaic.img_scale, pad.size) == ((32, 48), (48, 32))  # mmcv pads to width and height
    assert cfg.custom_hooks[0].switch_pipeline[0].crop_size == (32, 48)
    assert cfg.model == dict(backbone=dict(img_size=(32, 48)), test_cfg=dict(mode='whole'))
    assert len(changes.places) == 6


def test_detectors_name_the_width_first() -> None:
    resize = dict(type='RandomResize', scale=[(90, 60), (120, 80)], keep_ratio=True)
    shared = [dict(type='Resize', scale=(120, 80)), dict(type='Pad', size=(80, 80))]
    tests = dict(dataset=dict(pipeline=shared))
    cfg = config(resize, crop((80, 80)), scope='mmdet', val_dataloader=tests, test_dataloader=tests)
    set_crop_size(cfg, (100, 160))
    assert steps(cfg)[1].crop_size == (160, 100)
    assert [tuple(scale) for scale in steps(cfg)[0].scale] == [(112, 75), (150, 100)]
    for loader in ('val_dataloader', 'test_dataloader'):  # one list, resized once
        assert cfg[loader].dataset.pipeline[0].scale == (150, 100)
        assert cfg[loader].dataset.pipeline[1].size == (100, 100)
    foreign = config(crop((80, 40)) | dict(type='mmdet.RandomCrop'))
    set_crop_size(foreign, (20, 30))
    assert steps(foreign)[0].crop_size == (30, 20)


def test_a_config_for_predictions_alone() -> None:
    model = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(42, 42)))
    cfg = load_config(Config(dict(default_scope='mmseg', model=model)), {'crop_size': 32})
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(32, 32), stride=(21, 21))


@pytest.mark.parametrize(
    ('train', 'problem'),
    [
        ([dict(type='Resize', scale=(9, 8))], r'pipeline\.0\.scale=\(9, 8\): set that'),
        ([dict(type='Flip')], r"Put dict\(type='RandomCrop'"),
        ([crop((3, 6), crop_type='absolute_range')], 'not cut to one fixed size'),
        ([dict(type='RandomResizedCrop', scale=224)], r'RandomResizedCrop\(scale=224\)'),
        ([crop(8), crop(16)], r'cut to several sizes, .*pipeline\.0 to \(8, 8\), '),
        ([dict(type='Albu', transforms=[dict(type='RandomCrop', width=8)])], r'\(width=8\)'),
    ],
)
def test_what_is_in_the_way_is_named(train: list, problem: str) -> None:
    cfg = config(*train)
    before = cfg.to_dict()
    with pytest.raises(UsageError, match=f'^crop_size=64 cannot be set: .*{problem}'):
        set_crop_size(cfg, 64)
    assert cfg.to_dict() == before


@pytest.mark.parametrize('size', ['big', 0, 1.5, (1, 2, 3), True, None])
def test_no_size(size: Any) -> None:
    with pytest.raises(UsageError, match='is no size: expected the side of a square in pixels'):
        set_crop_size(config(crop(64)), size)


def test_classifiers_and_configs_without_a_crop() -> None:
    with pytest.raises(UsageError, match='is for configs of mmseg and mmdet'):
        set_crop_size(config(crop(64), scope='mmpretrain'), 32)
    with pytest.raises(UsageError, match=r'neither a training pipeline nor model\.test_cfg'):
        set_crop_size(Config(dict(default_scope='mmseg', model=dict())), 32)
