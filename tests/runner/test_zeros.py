"""No zero is lost on any way from a file into a run, without a hook of sparsity in the config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_run import POINTWISE, tiny_config
from torch import Tensor

from mmsw.apis.runner import build_runner
from mmsw.checkpoint import CheckpointError, load_checkpoint_file, save_checkpoint_file

KERNELS = 'backbone.stages.0.0.shift_wise.paths.0'
EMA = dict(type='EMAHook', momentum=0.3)
OPTIMIZERS = {
    'momentum': dict(type='SGD', lr=0.1, momentum=0.9),
    'adamw': dict(type='AdamW', lr=0.01, weight_decay=0.05),
}


def config(work_dir: Path, optimizer: str = 'momentum', iterations: int = 4, **settings) -> Config:
    cfg = tiny_config(work_dir, iterations, **settings)
    cfg.optim_wrapper.optimizer = OPTIMIZERS[optimizer]
    return cfg


def zero_kernels(state: dict[str, Tensor]) -> None:
    """Half of the small kernels of a path, as by hand: the mask keeps all."""
    state[f'{KERNELS}.weight'][::2] = 0
    assert state[f'{KERNELS}.mask'].all()


def mask_layer(state: dict[str, Tensor]) -> None:
    """Half of an ordinary layer, with a mask, as a run with ``scope`` saves it."""
    weight = state[f'{POINTWISE}.weight']
    weight[::2] = 0
    state[f'{POINTWISE}.mask'] = weight != 0


def torch_prune(state: dict[str, Tensor]) -> None:
    weight = state.pop(f'{POINTWISE}.weight')
    mask = torch.ones_like(weight)
    mask[::2] = 0
    state[f'{POINTWISE}.weight_orig'], state[f'{POINTWISE}.weight_mask'] = weight, mask


def drop_masks(state: dict[str, Tensor]) -> None:
    state[f'{KERNELS}.weight'][::2] = 0
    del state[f'{KERNELS}.mask']


CHANGES = {
    zero_kernels: KERNELS,
    mask_layer: POINTWISE,
    torch_prune: POINTWISE,
    drop_masks: KERNELS,
}


@pytest.fixture(scope='module', params=OPTIMIZERS)
def trained(request, tmp_path_factory) -> tuple[str, Path]:
    """An optimizer that has seen every weight move, and the file of its run."""
    folder = tmp_path_factory.mktemp(request.param)
    build_runner(config(folder, request.param, 2)).train()
    return request.param, folder / 'iter_2.pth'


def pruned(source: Path, target: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    content = load_checkpoint_file(source)
    change(content['state_dict'])
    save_checkpoint_file(content, target)
    return target


def assert_half_is_zero(runner: Runner, layer: str) -> None:
    """In the model, in what was written, and in averages: rows in turns, and not one more."""
    states = [runner.model.state_dict()]
    states += [hook.ema_model.module.state_dict() for hook in runner.hooks if 'EMA' in str(hook)]
    content = load_checkpoint_file(Path(runner.work_dir) / f'iter_{runner.max_iters}.pth')
    states += [content[name] for name in ('state_dict', 'ema_state_dict') if name in content]
    for state in states:
        weight = state.get(f'{layer}.weight', state.get(f'module.{layer}.weight'))
        assert torch.count_nonzero(weight[::2]) == 0
        assert torch.count_nonzero(weight[1::2]) == weight[1::2].numel()


@pytest.mark.parametrize('trained', ['momentum'], indirect=True)
@pytest.mark.parametrize('hooks', [[], [EMA]], ids=['plain', 'ema'])
@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('way', ['load_from', 'init_cfg', 'backbone'])
def test_zeros_of_a_new_run(
    trained, tmp_path, monkeypatch, way: str, change: Callable, hooks: list
) -> None:
    optimizer, source = trained
    path = str(pruned(source, tmp_path / 'pruned.pth', change))
    cfg = config(tmp_path / 'new', optimizer, custom_hooks=hooks)
    if way == 'load_from':
        cfg.load_from = path
    elif way == 'init_cfg':  # as mmdet and mmseg start whole models
        cfg.model.init_cfg = dict(type='Pretrained', checkpoint=path)
    else:
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)
    runner = build_runner(cfg)
    runner.train()
    assert_half_is_zero(runner, CHANGES[change])


@pytest.mark.parametrize('change', [mask_layer, torch_prune, drop_masks])
def test_zeros_that_are_newer_than_the_optimizer(trained, tmp_path, change: Callable) -> None:
    """Its momentum would move them."""
    optimizer, source = trained
    path = pruned(source, tmp_path / 'pruned.pth', change)
    runner = build_runner(config(tmp_path / 'new', optimizer), resume=path)
    runner.train()
    assert_half_is_zero(runner, CHANGES[change])


@pytest.mark.parametrize('trained', ['momentum'], indirect=True)
@pytest.mark.parametrize('way', ['load_from', 'init_cfg'])
def test_zeros_without_any_mask_are_told(trained, tmp_path, messages: list, way: str) -> None:
    """No mask says whether they are meant to stay."""
    _, source = trained

    def zero(state: dict[str, Tensor]) -> None:
        state[f'{POINTWISE}.weight'][::2] = 0

    path = str(pruned(source, tmp_path / 'pruned.pth', zero))
    cfg = config(tmp_path / 'new', iterations=2)
    if way == 'load_from':
        cfg.load_from = path
    else:
        cfg.model.init_cfg = dict(type='Pretrained', checkpoint=path)
    build_runner(cfg).train()
    told = [text for level, text in messages if level == 'WARNING' and 'have no mask' in text]
    assert len(told) == 1
    assert POINTWISE in told[0]
    assert 'pruned.pth' in told[0]


@pytest.mark.parametrize('trained', ['momentum'], indirect=True)
def test_part_of_a_file_by_prefix(trained, tmp_path) -> None:
    optimizer, source = trained
    content = load_checkpoint_file(source)
    zero_kernels(content['state_dict'])
    content['state_dict'] = {f'teacher.{k}': v for k, v in content['state_dict'].items()}
    save_checkpoint_file(content, tmp_path / 'pruned.pth')
    cfg = config(tmp_path / 'new', optimizer)
    cfg.model.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'pruned.pth'), prefix='teacher'
    )
    runner = build_runner(cfg)
    runner.train()
    assert_half_is_zero(runner, KERNELS)


@pytest.mark.parametrize('trained', ['momentum'], indirect=True)
@pytest.mark.parametrize('wrap', [dict, lambda state: {'model': state}], ids=['bare', 'model'])
def test_a_file_that_fills_nothing_is_refused(trained, tmp_path, wrap: Callable) -> None:
    _, source = trained
    state = load_checkpoint_file(source)['state_dict']
    names = {key.removeprefix('backbone.'): value for key, value in state.items()}
    del names['head.weight'], names['head.bias']
    save_checkpoint_file(wrap(names), tmp_path / 'backbone.pth')
    cfg = config(tmp_path / 'new', load_from=str(tmp_path / 'backbone.pth'))
    with pytest.raises(CheckpointError, match=r'fills nothing of the TinyModel.*--pretrained'):
        build_runner(cfg).train()


@pytest.mark.parametrize(
    'content',
    [{'state_dict': None}, {'state_dict': []}, {'state_dict': {1: 2}}, [], 7],
    ids=['none', 'list', 'number', 'no dict', 'no container'],
)
def test_what_holds_no_tensors_by_name_is_refused(tmp_path, content) -> None:
    save_checkpoint_file(content, tmp_path / 'odd.pth')
    cfg = config(tmp_path / 'new', load_from=str(tmp_path / 'odd.pth'))
    with pytest.raises(CheckpointError, match=r'odd\.pth (is damaged|holds a)'):
        build_runner(cfg).train()
