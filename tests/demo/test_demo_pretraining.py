"""The pretraining of the demonstration: by the training tool, and into one checkpoint."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_helpers import CONFIG, ROOT, load_tool, small_kernels
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS

from mmsw.apis import load_config
from mmsw.checkpoint import load_checkpoint_file, load_pretrained
from mmsw.demo.pretraining import make_demo_checkpoint, recipe_files
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import masks, report

PRETRAINING = ROOT / 'configs/demo/pretrain_sw_mini_scenes.py'
TINY = dict(
    type='ShiftWiseNet',
    arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]),
    big_kernels=(7, 7, 7, 7),
    out_indices=(1, 2, 3),
    init_cfg=dict(type='Pretrained', checkpoint='absent.pth'),
)


@pytest.fixture
def tiny() -> Config:
    """A config of another network, with a normalisation of its own."""
    preprocessor = dict(type='ImgDataPreprocessor', mean=[127.0], std=[50.0])
    return Config(
        dict(default_scope='mmengine', model=dict(backbone=TINY, data_preprocessor=preprocessor))
    )


def train(data: Path, work_dir: Path, iterations: int, *more: str) -> dict:
    """Pretrains a tiny network with tools/train.py; returns the last checkpoint."""
    arguments = [PRETRAINING, '--work-dir', work_dir, '--data-root', data / 'coco', *more]
    options = {
        'model.backbone.arch.depths': '1,1,1,1',
        'model.backbone.arch.dims': '8,8,8,8',
        'model.in_channels': 8,
        'train_dataloader.batch_size': 8,
        'train_cfg.max_iters': iterations,
        'param_scheduler.0.end': 2,  # the curve of four iterations, also where the run is shorter
        'param_scheduler.1.begin': 2,
        'param_scheduler.1.end': 4,
        'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 2,
        'custom_hooks.0.interval': 1,
        'custom_hooks.0.end_iter': 4,
    }
    arguments += ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]
    assert load_tool('train').main([str(item) for item in arguments]) == 0
    return load_checkpoint_file(work_dir / f'iter_{iterations}.pth')


def kept_of(filters: int, sparsity: float) -> int:
    """How many filters are kept where the two paths of a layer start with the same mask."""
    return 2 * (filters // 2 - round(sparsity * filters / 2))


def test_schedule_of_the_config_fits_the_demo_data():
    cfg = load_config(PRETRAINING)
    assert cfg.max_iters == cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end
    assert cfg.max_iters % cfg.val_interval == 0
    dynamic, guard = cfg.custom_hooks
    assert (dynamic.type, guard.type) == ('DynamicSparsityHook', 'SparsityReportHook')
    assert (dynamic.start, dynamic.sparsity) == ('snip', 0.4)
    assert dynamic.interval < dynamic.end_iter < cfg.max_iters
    demo = load_config(CONFIG)
    for key in ('mean', 'std', 'bgr_to_rgb'):
        assert cfg.model.data_preprocessor[key] == demo.model.data_preprocessor[key], key
    ours, theirs = dict(cfg.model.backbone), dict(demo.model.backbone)
    assert ours.pop('init_cfg') != theirs.pop('init_cfg')
    assert ours.pop('out_indices') == (3,)
    assert ours == theirs


def test_every_parameter_of_the_config_learns():
    model = revert_sync_batchnorm(MODELS.build(load_config(PRETRAINING).model))
    model(torch.randn(2, 3, 32, 32), torch.tensor([1, 10]), mode='loss')['loss'].backward()
    assert [name for name, param in model.named_parameters() if param.grad is None] == []


def test_recipe_files_are_all_that_the_config_inherits():
    assert recipe_files()[0] == PRETRAINING
    named = re.findall(r"'\.\./(_base_/[\w/]+\.py)'", PRETRAINING.read_text())
    assert {ROOT / 'configs' / name for name in named} == set(recipe_files()[1:])
    assert not any('_base_ =' in path.read_text() for path in recipe_files()[1:])


def test_training_tool_resumes_exactly_and_what_it_saves_loads(data, tmp_path, capfd):
    whole = train(data, tmp_path / 'whole', 4)
    first = train(data, tmp_path / 'parts', 2)
    rest = train(data, tmp_path / 'parts', 4, '--resume')
    assert re.search(r'Iter\(val\) \[\d+/\d+\] +accuracy: [01]\.\d+', capfd.readouterr().out)
    assert whole['state_dict'].keys() == rest['state_dict'].keys()
    for key, value in whole['state_dict'].items():
        assert torch.equal(value, rest['state_dict'][key]), key
    masks_at = [
        {key: value for key, value in saved['state_dict'].items() if key.endswith('.mask')}
        for saved in (first, whole)
    ]
    assert any(not torch.equal(masks_at[0][key], masks_at[1][key]) for key in masks_at[0])

    settings = Config.fromfile(tmp_path / 'whole/pretrain_sw_mini_scenes.py').model.backbone
    settings.pop('type')
    settings.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'whole/iter_4.pth'))
    settings.norm_cfg = dict(type='BN')
    net = ShiftWiseNet(**settings)
    net.init_weights()
    for key, value in net.state_dict().items():
        assert torch.equal(value, whole['state_dict'][f'backbone.{key}']), key
    assert report(net).total.kept == kept_of(report(net).total.total, 0.4)


@pytest.mark.parametrize(
    ('name', 'package'),
    [
        ('demo/upernet_sw_mini_scenes', 'mmseg'),
        ('demo/mask_rcnn_sw_mini_scenes', 'mmdet'),
        ('upernet_sw_t_ade20k', 'mmseg'),
        ('cascade_mask_rcnn_sw_t_coco', 'mmdet'),
    ],
)
def test_backbone_of_other_configs_takes_it(data, tmp_path, name, package):
    pytest.importorskip(package, reason=f'{package}: absent; the config needs it')
    cfg = load_config(ROOT / f'configs/{name}.py')
    cfg.model.backbone.update(
        arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]), big_kernels=(31, 15, 7, 5)
    )
    train(data, tmp_path, 2)
    settings = dict(cfg.model.backbone, norm_cfg=dict(type='BN'), init_cfg=None)
    settings.pop('type')
    net = ShiftWiseNet(**settings)
    load_pretrained(net, tmp_path / 'iter_2.pth')
    assert report(net).total.is_sparse


def test_checkpoint_is_exactly_as_sparse_as_asked(checkpoint, sparsity):
    kernels = small_kernels(checkpoint)
    content = load_checkpoint_file(checkpoint)
    net = ShiftWiseNet(
        **content['meta']['mmsw']['backbone'],
        init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint)),
    )
    net.init_weights()
    assert len(kernels) == len(masks(net)) == 2 * sum(net.depths)
    for name, mask in masks(net).items():
        pruned = ~mask.flatten(1).any(1)
        assert torch.count_nonzero(kernels[f'{name}.weight'][pruned]) == 0
        kept = kernels[f'{name}.weight'][~pruned]
        assert torch.count_nonzero(kept) == mask[~pruned].numel()
    assert report(net).total.kept == kept_of(report(net).total.total, sparsity)
    assert {key for key in content['state_dict'] if 'head' in key} == {'head.weight', 'head.bias'}


def test_checkpoint_is_deterministic_and_nothing_else_is_touched(data, tiny, tmp_path, capfd):
    random.seed(7), np.random.seed(7), torch.manual_seed(7)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    logger = MMLogger.get_current_instance()
    text = tiny.pretty_text
    lines: list[str] = []
    call = dict(sparsity=0.3, epochs=2, progress=lines.append)
    made = make_demo_checkpoint(data, tmp_path / 'a.pth', tiny, **call)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    assert MMLogger.get_current_instance() is logger
    assert tiny.pretty_text == text
    assert capfd.readouterr().out == ''
    assert [line.split(':')[0] for line in lines] == ['epoch 1/2', 'epoch 2/2']

    content = made.path.read_bytes()
    torch.manual_seed(8)
    make_demo_checkpoint(data, made.path, tiny, **call)
    assert made.path.read_bytes() == content
    other = make_demo_checkpoint(data, tmp_path / 'b.pth', tiny, seed=1, **call)
    first, second = (load_checkpoint_file(item.path) for item in (made, other))
    assert first['meta']['accuracy'] == made.accuracy
    settings = first['meta']['mmsw']['backbone']
    assert settings['arch'] == TINY['arch']
    assert settings['big_kernels'] == list(TINY['big_kernels'])
    assert not torch.equal(first['state_dict']['head.weight'], second['state_dict']['head.weight'])
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'b.pth']


def test_normalisation_is_that_of_the_config(data, tiny, tmp_path):
    call = dict(epochs=1, progress=lambda line: None)
    plain = make_demo_checkpoint(data, tmp_path / 'plain.pth', tiny, **call)
    tiny.model.data_preprocessor.std = [25.0]
    other = make_demo_checkpoint(data, tmp_path / 'other.pth', tiny, **call)
    heads = [load_checkpoint_file(m.path)['state_dict']['head.weight'] for m in (plain, other)]
    assert not torch.equal(*heads)


def test_failed_pretraining_leaves_nothing(data, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    monkeypatch.setattr('tempfile.tempdir', None)
    state = torch.get_rng_state()

    def stop(line: str) -> None:
        assert list(tmp_path.iterdir()), 'the run keeps its log meanwhile'
        raise KeyboardInterrupt

    logger = MMLogger.get_current_instance()
    with pytest.raises(KeyboardInterrupt):
        make_demo_checkpoint(data, tmp_path / 'out.pth', tiny, epochs=1, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert MMLogger.get_current_instance() is logger


def test_dense_checkpoint_by_the_tool(data, tmp_path, capsys):
    pytest.importorskip('mmseg', reason='mmseg: absent; the config of the segmentor needs it')
    out = tmp_path / 'dense.pth'
    arguments = ['--data', str(data), '--out', str(out), '--sparsity', '0', '--epochs', '1']
    assert load_tool('make_demo_checkpoint').main(arguments) == 0
    shown = capsys.readouterr().out
    assert re.search(
        r'^epoch 1/1: loss \d\.\d+, 100\.0% of the filters kept, held-out accuracy \d', shown
    )
    assert re.search(r'in all +(\d+)/\1 filters \(100\.00%\)', shown)
    assert all(weight.flatten(1).any(1).all() for weight in small_kernels(out).values())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (['--sparsity', '1'], r'sparsity must be in \[0, 1\), got 1\.0'),
        (['--sparsity', '-0.2'], r'got -0\.2'),
        (['--epochs', '0'], 'epochs must be at least 1, got 0'),
        (['--seed', '-4'], 'seed must not be negative, got -4'),
        (['--data', 'nowhere'], r'no demo data in nowhere: .*tools/make_demo_data\.py nowhere'),
        (['--out', '.'], 'is a folder'),
        (['--config', 'none.py'], r'none\.py does not exist'),
        (['--config', str(ROOT / 'configs/demo/upernet_r18_scenes.py')], 'no shift-wise layer'),
    ],
)
def test_command_line_errors_are_one_line(data, tmp_path, monkeypatch, capsys, change, message):
    pytest.importorskip('mmseg', reason='mmseg: absent; the config of the segmentor needs it')
    monkeypatch.chdir(tmp_path)
    arguments = ['--data', str(data), '--out', 'sparse.pth', *change]
    assert load_tool('make_demo_checkpoint').main(arguments) == 2
    shown = capsys.readouterr()
    assert re.search(rf'^error: .*{message}', shown.err, re.MULTILINE)
    assert shown.err.count('error: ') == 1
    assert list(tmp_path.iterdir()) == []
