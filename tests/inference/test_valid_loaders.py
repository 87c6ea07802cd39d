"""Which loaders are built for those that a config names."""

from __future__ import annotations

import copy

import mmcv.transforms
import pytest
from inference_helpers import CONFIGS
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from mmsw.apis import load_config, register_toolbox
from mmsw.apis.valid_loaders import with_valid_loaders
from mmsw.component_name import component_name
from mmsw.datasets import LoadValidAnnotations, LoadValidImageFromFile

STOCK = mmcv.transforms.LoadImageFromFile
IMAGE, LABELS = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')


@TRANSFORMS.register_module()
class LoadImageOfMine(STOCK):
    """Somebody's own loader."""


def kinds(value: object, scope: str, **settings: object) -> list[str]:
    """Names of all types in what is built instead of a part of a config."""

    def walk(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [component_name(value['type'])] if 'type' in value else []
            return own + [name for item in value.values() for name in walk(item)]
        return [name for item in value for name in walk(item)] if isinstance(value, list) else []

    register_toolbox(load_config(CONFIGS[scope]))
    before = copy.deepcopy(value)
    with DefaultScope.overwrite_default_scope(scope):
        found = walk(with_valid_loaders(value, Config(settings)))
    assert value == before
    return found


def test_stock_loaders_are_replaced_wherever_they_are() -> None:
    resize = dict(type='Resize', scale=(9, 9))
    choice = dict(type='RandomChoice', transforms=[[resize, LABELS], [LABELS]])
    tta = dict(type='TestTimeAug', transforms=[[resize], [LABELS]])
    inner = dict(type='CocoDataset', pipeline=[IMAGE, LABELS])
    mixed = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[choice])
    for scope in CONFIGS:
        assert kinds(dict(dataset=mixed), scope) == [
            'MultiImageMixDataset', 'CocoDataset', 'LoadValidImageFromFile', 'LoadValidAnnotations',
            'RandomChoice', 'Resize', 'LoadValidAnnotations', 'LoadValidAnnotations',
        ]  # fmt: skip
        found = kinds([IMAGE, tta], scope)
        assert found == ['LoadValidImageFromFile', 'TestTimeAug', 'Resize', 'LoadValidAnnotations']


@pytest.mark.parametrize(
    ('step', 'kind', 'package'),
    [
        (IMAGE, LoadValidImageFromFile, None),
        (dict(IMAGE, type=STOCK), LoadValidImageFromFile, None),
        (dict(IMAGE, type='mmcv.transforms.LoadImageFromFile'), LoadValidImageFromFile, None),
        (dict(IMAGE, imdecode_backend='pillow', to_float32=True), LoadValidImageFromFile, None),
        (dict(IMAGE, file_client_args=dict(backend='disk')), STOCK, None),
        (dict(IMAGE, type='LoadImageOfMine'), LoadImageOfMine, None),
        (dict(IMAGE, type='LoadValidImageFromFile'), LoadValidImageFromFile, None),
        (LABELS, LoadValidAnnotations, 'mmseg'),
        (dict(LABELS, type='mmdet.LoadAnnotations', with_mask=True), LoadValidAnnotations, 'mmdet'),
        (dict(LABELS, _scope_='mmdet'), LoadValidAnnotations, 'mmdet'),
        (dict(LABELS, type='LoadValidAnnotations'), LoadValidAnnotations, 'mmseg'),
    ],
)  # fmt: skip
def test_what_is_built(step: dict, kind: type, package: str | None) -> None:
    for scope in CONFIGS:
        register_toolbox(load_config(CONFIGS[scope]))
    with DefaultScope.overwrite_default_scope('mmseg'):
        built = TRANSFORMS.build(with_valid_loaders(step, Config()))
    assert type(built) is kind
    if package is not None:
        assert type(built.loader).__module__.startswith(f'{package}.')
    if 'imdecode_backend' in step:
        assert (built.imdecode_backend, built.to_float32) == ('pillow', True)


def test_a_config_can_keep_the_stock_loaders() -> None:
    assert kinds([IMAGE, LABELS], 'mmseg', stock_loaders=True) == [
        'LoadImageFromFile',
        'LoadAnnotations',
    ]


def test_classifiers_load_with_the_same_loader() -> None:
    """mmpretrain has mmcv's own class."""
    with DefaultScope.overwrite_default_scope('mmengine'):
        (step,) = with_valid_loaders([IMAGE], Config())
    assert step['type'] == 'LoadValidImageFromFile'


def test_what_is_unknown_is_left_to_those_who_build_it() -> None:
    step = dict(type='nowhere.LoadImageFromFile')
    assert with_valid_loaders(step, Config()) == step
