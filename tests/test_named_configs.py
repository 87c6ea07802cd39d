"""The configs of the package by their names: as a base, for mmengine.hub, for the tools."""

import functools
import importlib
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config, get_model

import mmsw
from mmsw.apis import UsageError, load_config, register_toolbox
from mmsw.apis.named_configs import config_path
from mmsw.models import ShiftWiseNet

ROOT = Path(__file__).resolve().parents[1]
NAME = 'upernet_sw_t_ade20k'
MODEL = """
_base_ = 'mmsw::_base_/models/upernet_shiftwise{}'
model = dict(backbone=dict(arch='base'))
default_scope = 'mmseg'
"""


@pytest.mark.parametrize('suffix', ['.py', ''])
def test_a_config_elsewhere_inherits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / 'mine.py'
    path.write_text(MODEL.format(suffix))
    model = Config.fromfile(path).model
    assert model.decode_head.type == 'UPerHead'
    assert model.backbone.arch == 'base'
    path.write_text("_base_ = ['mmsw::_base_/datasets/ade20k.py', 'mmsw::no/such.py']")
    with pytest.raises(UsageError, match=r'mmsw::no/such\.py, a base of .*mine\.py: there is no'):
        load_config(path)


def test_what_inherits_is_built_by_its_own_scope(tmp_path: Path) -> None:
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'mmsw::{NAME}.py'\n")
    cfg = load_config(path)
    assert cfg.model.to_dict() == load_config(ROOT / 'configs' / f'{NAME}.py').model.to_dict()
    assert '_scope_' not in cfg.train_dataloader.dataset
    assert register_toolbox(cfg) == 'mmseg'


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', 'demo/upernet_sw_mini_scenes.py'])
def test_hub_finds_a_config(name: str) -> None:
    found = get_config(f'mmsw::{name}')
    plain = Config.fromfile(ROOT / 'configs' / f'{name.removesuffix(".py")}.py')
    assert found.to_dict() == plain.to_dict()


def test_hub_builds_a_model() -> None:
    pytest.importorskip('mmseg', reason='mmseg: not installed')
    model = get_model('mmsw::demo/upernet_sw_mini_scenes.py')
    assert type(model).__module__.startswith('mmseg.')
    assert isinstance(model.backbone, ShiftWiseNet)


def test_names_of_other_packages_stay_theirs() -> None:
    with pytest.raises(ValueError, match='please specify the package name and relative config'):
        get_config('mmseg::no_folder.py')
    before = Config._get_cfg_path
    mmsw.config_package.make_known()
    importlib.reload(mmsw.config_package).make_known()
    assert Config._get_cfg_path is before


def test_other_packages_may_wrap_the_same_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Config._get_cfg_path

    def wrapped(function: object) -> object:
        return functools.wraps(function)(lambda *args: function(*args))

    monkeypatch.setattr(Config, '_get_cfg_path', staticmethod(wrapped(ours)))  # after mmsw
    after = Config._get_cfg_path
    mmsw.config_package.make_known()
    assert Config._get_cfg_path is after
    monkeypatch.setattr(Config, '_get_cfg_path', staticmethod(wrapped(ours.__wrapped__)))  # before
    mmsw.config_package.make_known()
    assert Config.fromstring(f"_base_ = 'mmsw::{NAME}'", '.py').model.type == 'EncoderDecoder'


def test_a_tool_takes_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = ROOT / 'configs' / f'{NAME}.py'
    for folder in (NAME, 'mine'):
        (tmp_path / folder).mkdir()  # a work folder is no config
    for name in (NAME, f'{NAME}.py', f'mmsw::{NAME}', f'mmsw::{NAME}.py'):
        assert config_path(Path(name)).samefile(expected)
    for name in ('demo/mask_rcnn_sw_mini_scenes', 'mask_rcnn_sw_mini_scenes.py'):
        assert config_path(Path(name)).name == 'mask_rcnn_sw_mini_scenes.py'
    assert load_config(NAME).model.type == 'EncoderDecoder'
    with pytest.raises(UsageError, match='config file mine is a folder'):
        load_config('mine')
    (tmp_path / f'{NAME}.py').write_text("default_scope = 'mmengine'\n")
    assert load_config(f'{NAME}.py').default_scope == 'mmengine'  # a file wins


def test_an_unknown_name_is_told_its_neighbours() -> None:
    with pytest.raises(UsageError, match=r'does not exist .*such a name: .*upernet_sw_t_ade20k'):
        load_config('upernet_sw_t_ade')
    with pytest.raises(UsageError, match=r'does not exist \(working folder: [^;]*\)$'):
        load_config('zzz.py')
