"""What the constructors of a model refuse: one line that names the config, in every tool."""

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_run import tiny_config
from torch import nn

from mmsw.apis import UsageError, build_runner, init_model
from mmsw.apis.model_building import build_model
from mmsw.models import ShiftWiseNet

ROOT = Path(__file__).resolve().parents[1]
SEGMENTOR = ROOT / 'tests' / 'data' / 'upernet_mini_ade20k.py'


class Wrong(nn.Module):
    """Of a user, and wrong in itself."""

    def __init__(self, how: str) -> None:
        super().__init__()
        if how == 'asserts':
            raise AssertionError  # as `assert` without a text
        self.left = None + 1 if how == 'none' else {}[how]


@pytest.fixture
def labelled(ade_layout: Path) -> Path:
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (ade_layout / kind / split / f'a.{"jpg" if kind == "images" else "png"}').touch()
    return ade_layout


@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'get_flops.py', 'demo_image.py'])
@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.backbone.out_indices=[0,7]', 'out_indices must name stages 0 to 3, got (0, 7)'),
        ('model.backbone.colour=red', "unexpected keyword argument 'colour'"),
    ],
)
def test_one_line_from_every_tool(
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    tool: str,
    option: str,
    message: str,
) -> None:
    (tmp_path / 'a.pth').touch()
    cv2.imwrite(str(tmp_path / 'a.jpg'), np.zeros((8, 8, 3), np.uint8))
    files = ['--data-root', labelled, '--work-dir', tmp_path / 'work']
    more = {
        'train.py': files,
        'test.py': [tmp_path / 'a.pth', *files],
        'get_flops.py': [],
        'demo_image.py': [tmp_path / 'a.pth', tmp_path / 'a.jpg'],
    }[tool]
    main = runpy.run_path(str(ROOT / 'tools' / tool))['main']
    arguments = [SEGMENTOR, *more]
    assert main([str(word) for word in [*arguments, '--cfg-options', option]]) == 2
    said = capsys.readouterr().err
    assert 'Traceback' not in said
    begin = f'the model of {SEGMENTOR} cannot be built: '
    if 'colour' in option:
        begin = 'the config option model.backbone.colour does not fit what it is for: '
    line = said.splitlines()[-1]
    assert line.startswith(f'error: {begin}')
    assert message in line


@pytest.mark.parametrize(
    ('how', 'error'),
    [('asserts', UsageError), ('none', TypeError), ('missing', KeyError)],
)
def test_faults_of_the_code_keep_their_traceback(how: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        build_model(Config(dict(model=dict(type=Wrong, how=how))))
    if how == 'asserts':
        assert isinstance(caught.value.__cause__, AssertionError)
        assert 'cannot be built: AssertionError at test_model_building.py:' in str(caught.value)


def test_a_name_that_nobody_registered() -> None:
    with pytest.raises(UsageError, match='the config cannot be built: NoSuchModel is not in the'):
        build_model(Config(dict(model=dict(type='NoSuchModel'))))


def test_efficient_conv_bn_eval_leaves_the_backbone_as_it_is(tmp_path: Path) -> None:
    losses = []
    for option in ({}, dict(efficient_conv_bn_eval=['backbone', 'head'])):
        runner = build_runner(tiny_config(tmp_path / str(len(losses)), **option))
        runner.train()
        losses.append(runner.model(torch.ones(2, 3, 64, 64)).tolist())
    assert losses[0] == losses[1]
    assert runner.cfg.efficient_conv_bn_eval == ['head']
    assert runner.model.backbone.forward.__func__ is ShiftWiseNet.forward


def test_a_part_that_cannot_be_traced_is_refused_before_training(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, efficient_conv_bn_eval='backbone')
    runner = build_runner(cfg)
    runner.model.backbone = nn.Sequential(runner.model.backbone)
    with pytest.raises(UsageError, match="names 'backbone', which holds shift-wise layers"):
        runner.train()
    assert not list(tmp_path.rglob('*.pth'))


def test_a_data_set_that_cannot_be_built_is_one_line() -> None:
    """It is asked for names and colours of the classes."""
    options = {'test_dataloader.dataset.metainfo': dict(classes=('thing',))}
    with pytest.raises(UsageError, match=r"^the data set in test_dataloader of .*\('thing',\)"):
        init_model(SEGMENTOR, cfg_options=options)
