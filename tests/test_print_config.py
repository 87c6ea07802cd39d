"""tools/print_config.py: the config that a run would use, as text that is a config again."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from config_helpers import DETECTOR, MINI, RECIPE, ROOT
from mmengine.config import Config
from tiny_run import tiny_config

from mmsw.apis import build_runner, load_config
from mmsw.apis.config_text import print_config

PRETRAINING = ROOT / 'configs' / 'pretrain' / 'sw_t_in1k.py'


def call(*arguments: object) -> int:
    main = runpy.run_path(str(ROOT / 'tools' / 'print_config.py'))['main']
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize('config', [MINI, DETECTOR, PRETRAINING], ids=lambda path: path.stem)
def test_what_is_printed_is_a_config_again(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """mmengine reads it, as every tool of the toolboxes does; printing it again changes nothing."""
    assert call(config, '--work-dir', 'here') == 0
    text = capsys.readouterr().out
    (tmp_path / 'printed.py').write_text(text)
    expected = load_config(config).to_dict() | dict(work_dir='here', launcher='none')
    assert Config.fromfile(tmp_path / 'printed.py').to_dict() == expected
    assert call(tmp_path / 'printed.py') == 0
    assert capsys.readouterr().out == text


def test_every_option_is_applied_where_neither_gpu_nor_packages_are(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / 'full.py'
    words = ('--from-scratch', '--amp', '--auto-scale-lr', '--tensorboard', '--wandb', 'mine')
    options = ('--cfg-options', 'train_dataloader.batch_size=3', 'crop_sice=9')
    assert call(RECIPE, *words, '--data-root', 'elsewhere', '--out', out, *options) == 0
    cfg = Config.fromfile(out)
    assert cfg.model.backbone.init_cfg is None
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.auto_scale_lr.enable is True
    assert cfg.train_dataloader.batch_size == 3
    assert cfg.val_dataloader.dataset.data_root == 'elsewhere'
    assert [item.type for item in cfg.visualizer.vis_backends][1:] == [
        'TensorboardVisBackend',
        'WandbVisBackend',
    ]
    assert cfg.custom_hooks[-1].type == 'MonitorHook'
    assert cfg.work_dir == 'work_dirs/upernet_sw_t_ade20k'
    assert capsys.readouterr().out == '', 'what is said goes to the standard error'


def test_it_is_what_a_run_saves(tmp_path: Path) -> None:
    print_config(tiny_config(tmp_path / 'work'), tmp_path / 'printed.py', pretrained=False)
    runner = build_runner(tiny_config(tmp_path / 'work'), pretrained=False)
    used = runner.cfg.to_dict()
    printed = Config.fromfile(tmp_path / 'printed.py').to_dict()
    for own in ('visualizer', 'experiment_name'):  # names that no other run of the process has
        used.pop(own, None)
    assert printed == used


def test_no_file_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    mine = tmp_path / 'mine.py'
    mine.write_text('a = 1')
    for out, problem in ((mine, 'exists: remove it'), (tmp_path / 'a.txt', 'the name of a .py')):
        assert call(MINI, '--out', out) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: --out')
        assert problem in error
    assert mine.read_text() == 'a = 1'


def test_an_absent_config_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert call('absent.py') == 2
    assert capsys.readouterr().err.startswith('error: config file absent.py does not exist')
