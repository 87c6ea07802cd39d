"""Toolboxes that are missing or broken, and what the tools do for each of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_helpers import RECIPE
from mmengine.config import Config
from pretrain_helpers import PROBLEM, SW_T

from mmsw.apis import UsageError, check_data, load_config, register_toolbox
from mmsw.apis.checks.datasets import explained_errors
from mmsw.apis.testing import enable_drawing, enable_output
from mmsw.datasets import DataError


def test_missing_data_are_named(tmp_path: Path) -> None:
    (tmp_path / 'train').mkdir()
    with pytest.raises(UsageError, match=rf'data folder {tmp_path} lacks val '):
        check_data(load_config(SW_T, data_root=tmp_path))
    (tmp_path / 'val').mkdir()
    cfg = load_config(SW_T, data_root=tmp_path)
    check_data(cfg)
    del cfg.train_dataloader.dataset['data_prefix']  # mmpretrain takes the split for it
    (tmp_path / 'train').rmdir()
    with pytest.raises(UsageError, match=rf'data folder {tmp_path} lacks train '):
        check_data(cfg)


def test_folders_that_are_not_the_classes_are_explained(tmp_path: Path) -> None:
    (tmp_path / 'train' / 'n01440764').mkdir(parents=True)
    loader = load_config(SW_T, data_root=tmp_path).train_dataloader
    expected = rf'train_dataloader .*{tmp_path}/train \(folders in it: 1\): too few.*CustomDataset'
    with pytest.raises(DataError, match=expected), explained_errors(loader, 'train_dataloader'):
        raise AssertionError('too few')
    with pytest.raises(KeyError), explained_errors(loader, 'train_dataloader'):
        raise KeyError('nothing about data')


@pytest.mark.parametrize(
    'error',
    [
        ModuleNotFoundError("No module named 'mmpretrain'"),
        RuntimeError('operator torchvision::nms does not exist'),
        AssertionError('MMCV==2.3.0 is used but incompatible'),
    ],
)
def test_mmpretrain_that_does_not_work_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def import_module(name: str) -> type:
        if name == 'mmseg.utils':
            return Toolbox
        raise error

    cfg, other = load_config(SW_T), load_config(RECIPE)
    other.model.backbone.type = 'mmpretrain.ConvNeXt'
    monkeypatch.setattr('importlib.import_module', import_module)
    with pytest.raises(UsageError, match=r'sw_t_in1k\.py is for mmpretrain, which') as caught:
        register_toolbox(cfg)
    assert str(error) in str(caught.value)
    assert "pip install --no-build-isolation '.[pretrain]'" in str(caught.value)
    with pytest.raises(UsageError, match=r"names 'mmpretrain\.ConvNeXt' of mmpretrain, which"):
        register_toolbox(other)


class Toolbox:
    """Stands for a toolbox that is installed."""

    @staticmethod
    def register_all_modules(init_default_scope: bool) -> None:
        assert not init_default_scope


def test_config_without_toolbox_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise AssertionError(f'{name} was imported')

    monkeypatch.setattr('importlib.import_module', fail)
    cfg = Config(dict(default_scope='mmengine', model=dict(type='PooledNorm', in_channels=4)))
    assert register_toolbox(cfg) == 'mmengine'


def test_config_that_inherits_or_imports_mmpretrain(tmp_path: Path) -> None:
    if PROBLEM is None:
        pytest.skip('no-mmpretrain: it works here')
    heir = tmp_path / 'heir.py'
    heir.write_text("_base_ = 'mmpretrain::_base_/default_runtime.py'\n")
    importer = tmp_path / 'importer.py'
    importer.write_text("custom_imports = dict(imports=['mmpretrain.models'])\n")
    expected = r"mmpretrain.*; to get mmpretrain, in .*'\.\[pretrain\]'"
    with pytest.raises(UsageError, match=expected):
        register_toolbox(load_config(heir))
    with pytest.raises(UsageError, match=r"; to get mmpretrain, in .*'\.\[pretrain\]'"):
        load_config(importer)


def test_pictures_and_predictions_by_scope(tmp_path: Path) -> None:
    cfg = load_config(SW_T)
    enable_drawing(cfg, 'mmpretrain', tmp_path)
    hook = cfg.default_hooks.visualization
    assert (hook.type, hook.enable, hook.interval) == ('VisualizationHook', True, 1)
    assert hook.out_dir == str(tmp_path)
    enable_output(cfg, 'mmpretrain', 'a.pkl')
    assert cfg.test_evaluator[1:] == [dict(type='DumpResults', out_file_path='a.pkl')]
    with pytest.raises(UsageError, match=r"predictions are written to one \.pkl file, got 'a'"):
        enable_output(cfg, 'mmpretrain', 'a')
    with pytest.raises(UsageError, match="default_scope='mmengine', which has nothing to draw"):
        enable_drawing(cfg, 'mmengine', tmp_path)
