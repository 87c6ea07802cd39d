"""Configs that hold classes instead of names go all the way that others go."""

from __future__ import annotations

import copy
import functools
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from inference_helpers import ROOT, both, write_data
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS
from torch import nn

from mmsw.apis import (
    PortableRunner,
    UsageError,
    build_runner,
    build_test_runner,
    inference,
    init_model,
    load_config,
    register_toolbox,
)
from mmsw.apis.plain_config import check_can_be_saved
from mmsw.checkpoint import read_checkpoint
from mmsw.component_name import component_name
from mmsw.models import ShiftWiseNet

pytestmark = pytest.mark.usefixtures('quiet')

FOLDER = ROOT / 'tests' / 'data' / 'pure_python'
PURE = {
    'mmseg': FOLDER / 'fcn_mini_ade20k.py',
    'mmdet': FOLDER / 'retinanet_mini_coco.py',
}


@pytest.fixture(scope='module')
def folders(plain_config_text, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Per toolbox: data, and the work folder of two iterations that another run took to four."""
    folders = {}
    for scope, config in PURE.items():
        folder = folders[scope] = tmp_path_factory.mktemp(scope)
        call = dict(work_dir=folder / 'work', data_root=write_data(scope, folder))
        build_runner(config, **call).train()
        options = {'train_cfg.max_iters': 4, 'train_cfg.val_interval': 9}
        resumed = build_runner(config, resume='auto', cfg_options=options, **call)
        resumed.train()
        assert resumed.iter == 4
    return folders


@both
def test_is_a_config_of_names(scope: str) -> None:
    cfg = load_config(PURE[scope])
    assert register_toolbox(cfg) == cfg.default_scope == scope
    assert cfg.model.type == {'mmseg': 'EncoderDecoder', 'mmdet': 'RetinaNet'}[scope]
    assert cfg.model.backbone.type in ('mmsw.models.ShiftWiseNet', 'mmsw.ShiftWiseNet')
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert component_name(cfg.custom_hooks[0].type) == 'SparsityReportHook'
    assert 'ShiftWiseNet' not in cfg
    assert load_config(cfg).to_dict() == cfg.to_dict()
    assert pickle.loads(pickle.dumps(cfg)).to_dict() == copy.deepcopy(cfg).to_dict()
    if scope == 'mmseg':
        head = cfg.model.decode_head
        assert (head.norm_cfg.type, head.act_cfg.type) == ('BN', 'ReLU')
        assert component_name(cfg.custom_hooks[1].ema_type) == 'ExponentialMovingAverage'
    else:
        assert cfg.model.test_cfg.nms.type == 'nms'


@both
def test_dumped_config_trains_on(scope: str, folders: dict[str, Path], tmp_path: Path) -> None:
    (dumped,) = (folders[scope] / 'work').glob('*.py')
    assert Config.fromfile(dumped).default_scope == scope
    start = folders[scope] / 'work' / 'iter_4.pth'
    options = {
        'load_from': str(start),
        'resume': False,  # as the run that dumped it was
        'train_cfg.max_iters': 1,
        'optim_wrapper.optimizer.lr': 0.0,
    }
    runner = build_runner(dumped, tmp_path / 'again', cfg_options=options)
    runner.train()
    saved, name = read_checkpoint(start)['state_dict'], 'backbone.downsample_layers.0.0.weight'
    assert torch.equal(runner.model.state_dict()[name], saved[name])
    again = read_checkpoint(tmp_path / 'again' / 'iter_1.pth')
    assert again['meta']['dataset_meta']['classes'][0] in ('wall', 'square')


@both
def test_testing_draws_and_writes(scope: str, folders: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = folders[scope] / 'work' / 'iter_4.pth'
    out = tmp_path / {'mmseg': 'maps', 'mmdet': 'boxes.pkl'}[scope]
    for tta in (False, True)[: 2 if scope == 'mmseg' else 1]:
        scores = build_test_runner(
            PURE[scope],
            checkpoint,
            work_dir=tmp_path / 'work',
            data_root=folders[scope] / 'data',
            show_dir=tmp_path / 'shown',
            out=out,
            tta=tta,
        ).test()
        assert {'mmseg': 'mIoU', 'mmdet': 'coco/bbox_mAP'}[scope] in scores
    assert len(list(out.iterdir()) if scope == 'mmseg' else pickle.loads(out.read_bytes())) == 2
    assert len(list((tmp_path / 'shown').rglob('*.*'))) == 2


@both
def test_models_are_built_and_infer(scope: str, folders: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = folders[scope] / 'work' / 'iter_4.pth'
    image = np.random.randint(0, 256, (61, 87, 3), dtype=np.uint8)
    model = init_model(PURE[scope], checkpoint)
    result = inference(model, image)
    assert result.ori_shape == (61, 87)
    (dumped,) = (folders[scope] / 'work').glob('*.py')
    again = inference(init_model(dumped, checkpoint), image)
    for key in ('pred_sem_seg',) if scope == 'mmseg' else ():
        assert torch.equal(result.get(key).data, again.get(key).data)
    if scope == 'mmdet':
        assert torch.equal(result.pred_instances.bboxes, again.pred_instances.bboxes)
        from mmdet.apis import DetInferencer

        found = DetInferencer(weights=str(checkpoint), device='cpu')(
            image, return_datasamples=True, no_save_vis=True
        )
        assert torch.equal(
            found['predictions'][0].pred_instances.bboxes, result.pred_instances.bboxes
        )


@both
def test_tools_take_them(scope: str, folders: dict[str, Path], tmp_path: Path, capsys) -> None:
    def call(tool: str, *arguments: object) -> str:
        main = runpy.run_path(str(ROOT / 'tools' / f'{tool}.py'))['main']
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    assert 'input 3 x 64 x 64' in call('get_flops', PURE[scope], '--shape', 64, 64)
    image = next((folders[scope] / 'data').rglob('0.jpg'))
    checkpoint = folders[scope] / 'work' / 'iter_4.pth'
    assert str(image) in call('demo_image', PURE[scope], checkpoint, image, '--out', tmp_path)
    assert (tmp_path / '0.jpg').is_file()


def seen(**settings: object) -> Config:
    return load_config(Config(dict(default_scope='mmengine', **settings)))


class Elsewhere(nn.Module):
    """A part that no registry has."""


def test_classes_in_a_config_of_a_program() -> None:
    cfg = seen(
        model=dict(type=Elsewhere, init_cfg=dict(type=PretrainedInit, checkpoint='x')),
        others=[dict(type=ShiftWiseNet), dict(type=InfiniteSampler), dict(type=torch.optim.AdamW)],
        by_path=dict(type='mmengine.model.PretrainedInit'),
        unknown=dict(type='no.such.place'),
        norm=dict(type=nn.SyncBatchNorm),
        part=Elsewhere,
    )
    assert cfg.model.type == f'{__name__}.Elsewhere'
    assert cfg.model.init_cfg.type == cfg.by_path.type == 'Pretrained'
    assert [item.type for item in cfg.others] == [
        'mmsw.models.ShiftWiseNet',
        'InfiniteSampler',
        'AdamW',
    ]
    assert cfg.unknown.type == 'no.such.place'
    assert MODELS.get(cfg.norm.type) is nn.SyncBatchNorm
    assert cfg.part is Elsewhere  # no type: whoever gets it may want the class
    text = Config.fromstring(cfg.pretty_text, '.py')
    assert text.part == f'{__name__}.Elsewhere'


def test_a_function_that_is_nowhere_is_refused_where_the_config_is_saved(tmp_path: Path) -> None:
    cfg = seen(model=dict(type=Elsewhere, act=lambda x: x))
    assert cfg.model.act(2) == 2
    with pytest.raises(UsageError, match=r'act=<function .*lambda.* cannot be saved as text: put'):
        build_runner(cfg, tmp_path)


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (Path('/a/b'), r"value=PosixPath\('/a/b'\), .*: write it as '/a/b'$"),
        (np.zeros(2), r'value=array\(\[0\., 0\.\]\), which .*: write it in numbers, texts'),
        (functools.partial(max, 1), r'value=functools.partial\(.*put it into a module'),
    ],
)
def test_values_that_are_no_text(value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        build_runner(seen(model=dict(type=Elsewhere), value=value), tmp_path)


def test_values_that_are_text(tmp_path: Path) -> None:
    values = [np.float64(0.5), slice(1, 2), {1, 2}, range(3), b'x', 1j, torch.ones(2)]
    cfg = seen(model=dict(type=Elsewhere), values=values, part=nn.ReLU())
    check_can_be_saved(cfg, 'the config')
    assert compile(cfg.pretty_text, 'text', 'exec')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('from mmcv import imread\nfrom torch.optim import SGD\na = imread(1)', 'line 3 calls'),
        ('import torch.optim as optim\n\na = optim.SGD(1)', 'line 3 calls what the file imports'),
        ("_base_ = './pure.py'", 'it inherits from a config in pure Python .*in one style$'),
        ('from absent.part import A\na = dict(type=A)', r"line 1 for No module named 'absent'$"),
        ('from mmseg.absent import A\na = dict(type=A)', r"named 'mmseg\.absent'$"),
    ],
)
def test_what_mmengine_cannot_read(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'pure.py').write_text('from torch.optim import SGD\noptimizer = dict(type=SGD)')
    (tmp_path / 'config.py').write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_config(tmp_path / 'config.py')
    assert len(str(caught.value)) < 400


def test_scopes_of_classes(tmp_path: Path) -> None:
    def scope_of(text: str) -> str:
        (tmp_path / 'config.py').write_text(text)
        return register_toolbox(load_config(tmp_path / 'config.py'))

    from_mmdet = 'from mmdet.models import RetinaNet\n'
    two = 'from mmdet.datasets import CocoDataset\nfrom mmseg.datasets import ADE20KDataset\n'
    data = 'a = dict(type=CocoDataset)\nb = dict(type=ADE20KDataset)\n'
    assert scope_of(f'{from_mmdet}{two}{data}model = dict(type=RetinaNet)') == 'mmdet'
    assert scope_of("model = dict(type='mmseg.models.EncoderDecoder')") == 'mmseg'
    assert scope_of(f'{two}default_scope = "mmseg"\n{data}') == 'mmseg'
    assert scope_of('from torch.optim import SGD\noptimizer = dict(type=SGD)') == 'mmengine'
    with pytest.raises(UsageError, match='its components are of mmdet and mmseg: say which'):
        scope_of(two + data)
    with pytest.raises(UsageError, match='has default_scope=None; expected one of'):
        scope_of("from torch.optim import SGD\na = dict(type=SGD)\nb = dict(type='FCNHead')")
    with pytest.raises(
        UsageError, match=r'Failed to import Absent from mmdet\.models in .*line 1$'
    ):
        scope_of('from mmdet.models import Absent\nmodel = dict(type=Absent)')


def test_runners_of_classes(tmp_path: Path) -> None:
    cfg = seen(runner_type=PortableRunner)
    assert cfg.runner_type is PortableRunner
