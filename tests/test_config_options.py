"""``--cfg-options`` that change nothing, or that cannot be read."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from config_helpers import MINI
from mmengine.config import Config
from tiny_run import tiny_config

from mmsw.apis import build_runner, load_config
from mmsw.apis.checks import options as options_check
from mmsw.apis.cli import run_reporting_errors
from mmsw.apis.config_options import ConfigOptions

VARIABLES = """
side = 64
optimizer = dict(lr=0.1)
vis_backends = [dict(type='LocalVisBackend')]
model = dict(type='A')
train_pipeline = [dict(type='RandomCrop', side=side)]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_iters=900)
optim_wrapper = dict(optimizer=optimizer)
visualizer = dict(vis_backends=vis_backends)
"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the warnings; an earlier logger may hold another stream."""
    found: list[str] = []
    monkeypatch.setattr(options_check, 'print_log', lambda text, *_: found.append(text))
    return found


@pytest.mark.parametrize(
    ('option', 'meant'),
    [
        ('side', 'train_dataloader.dataset.pipeline.0.side'),
        ('optimizer.lr', 'optim_wrapper.optimizer.lr'),
        ('vis_backends.0.type', 'visualizer.vis_backends.0.type'),
        ('trian_cfg.max_iters', 'train_cfg'),
        ('lr', 'optim_wrapper.optimizer.lr'),
    ],
)
def test_option_that_nothing_reads_is_named(
    option: str, meant: str, tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / 'config.py').write_text(VARIABLES)
    load_config(tmp_path / 'config.py', {option: 1})
    (text,) = said
    assert text.startswith(f'the config option {option} has no effect: ')
    assert text.endswith(f'. Did you mean {meant}?')
    known = option.partition('.')[0] in Config.fromfile(tmp_path / 'config.py')
    assert ('it is a variable' if known else 'nothing reads such a key') in text
    if meant != 'train_cfg':
        load_config(tmp_path / 'config.py', {meant: 1})
        assert said == [text]


def test_nothing_is_said_of_what_is_read(said: list[str]) -> None:
    options = dict(find_unused_parameters=True, use_tta=True, log_level='INFO', data_root='new')
    options.update({'test_pipeline.0.type': 'A', 'custom_hooks': [], 'stock_loaders': True})
    load_config(MINI, options)
    load_config(Config(dict(model=dict(type='A'))), {'data_preprocessor.size': (8, 8)})
    own = Config(dict(runner_type='MyRunner', mine=1))
    load_config(own, {'mine': 2, 'other': 3})  # a runner of somebody else may read anything
    assert said == []


def test_the_preprocessor_of_the_model_is_the_one_that_is_read(said: list[str]) -> None:
    """mmseg's files have a variable of this name beside it."""
    load_config(MINI, {'data_preprocessor.size': (8, 8)})
    assert len(said) == 1
    assert said[0].endswith('Did you mean model.data_preprocessor.size?')


@pytest.mark.parametrize('option', ['train_dataloader.batchsize', 'model.backbone.paths'])
def test_misspelt_option_is_one_line(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = {option: 2}

    def run() -> None:
        build_runner(tiny_config(tmp_path), cfg_options=options).train()

    assert run_reporting_errors(run, options=options) == 2
    name = option.rpartition('.')[2]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f'error: the config option {option} does not fit what it is for: ')
    assert line.endswith(f"got an unexpected keyword argument '{name}'")
    other = {'train_cfg.max_iters': 1}
    if option.startswith('model.'):
        assert run_reporting_errors(run, options=other) == 2
        assert 'the model of the config cannot be built: ' in capsys.readouterr().err
        return
    with pytest.raises(TypeError):  # another error of this kind keeps its traceback
        run_reporting_errors(run, options=other)


@pytest.mark.parametrize(
    ('given', 'why'),
    [
        ('custom_hooks=[dict(type="MonitorHook", num_pictures=0)]', 'a dict cannot be given'),
        ('custom_hooks=[dict(type="MonitorHook")]', 'a dict cannot be given'),
        ('own_data={"classes": ("a", "b")}', 'a dict cannot be given'),
        ('a=x(1,2),y', 'its brackets do not go together'),
        ('a=[1,2', 'its brackets do not go together'),
        ('max_iters', 'expected KEY=VALUE'),
    ],
)
def test_what_is_no_option_ends_in_one_line(
    given: str, why: str, capsys: pytest.CaptureFixture
) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(['--cfg-options', given])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count('\n') == 1
    assert given in said
    assert why in said


def test_values_that_only_look_like_dicts_are_read() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    given = ['a=my/dict(1)', 'b={epoch}.pth', 'c=[(1,2),(3,4)]', 'd=']
    read = parser.parse_args(['--cfg-options', *given]).cfg_options
    assert read == {'a': 'my/dict(1)', 'b': '{epoch}.pth', 'c': [(1, 2), (3, 4)], 'd': ''}
