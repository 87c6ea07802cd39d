"""A mask that no layer of the network takes is never left out without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner
from tiny_run import tiny_config, tiny_net
from torch import Tensor

from mmsw.apis import build_runner, init_model
from mmsw.apis.complexity_report import count_complexity
from mmsw.checkpoint import (
    CheckpointError,
    load_checkpoint_file,
    load_pretrained,
    pruned,
    save_checkpoint_file,
)

NORM = 'backbone.stages.0.0.shift_wise.norm_h'
OUTPUT = 'backbone.norm3'


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory, plain_config_text: None) -> Path:
    """The file of a training."""
    folder = tmp_path_factory.mktemp('trained')
    build_runner(tiny_config(folder)).train()
    return folder / 'iter_2.pth'


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(pruned, 'print_log', lambda text, **_: texts.append(text))
    return texts


def start(path: Path, folder: Path) -> None:
    cfg = tiny_config(folder)
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    build_runner(cfg).train()


def hook(path: Path, folder: Path) -> None:
    """mmengine's own runner."""
    hooks = [dict(type='SparsityReportHook')]
    Runner.from_cfg(tiny_config(folder, custom_hooks=hooks, load_from=str(path))).train()


def two_hooks(path: Path, folder: Path) -> None:
    """Each of them looks at the file."""
    hooks = [
        dict(type='SparsityReportHook'),
        dict(type='DynamicSparsityHook', start='erk', sparsity=0.5),
    ]
    Runner.from_cfg(tiny_config(folder, custom_hooks=hooks, load_from=str(path))).train()


def load_from(path: Path, folder: Path) -> None:
    build_runner(tiny_config(folder, load_from=str(path))).train()


TRAININGS: dict[str, Callable[[Path, Path], object]] = {
    'load_from': load_from,
    'resume': lambda path, folder: build_runner(tiny_config(folder, 4), resume=path).train(),
    'init_cfg': start,
    'hook': hook,
    'two hooks': two_hooks,
}
OTHERS: dict[str, Callable[[Path, Path], object]] = {
    'init_model': lambda path, folder: init_model(tiny_config(folder), path),
    'get_flops': lambda path, folder: count_complexity(tiny_config(folder), (32, 32), path),
}
WAYS = {**TRAININGS, **OTHERS}


def with_mask(path: Path, target: Path, name: str, **tensors: Tensor) -> Path:
    content = load_checkpoint_file(path)
    content['state_dict'].update({f'{name}.{key}': value for key, value in tensors.items()})
    save_checkpoint_file(content, target)
    return target


def told(texts: list[str], name: str) -> list[str]:
    return [text for text in texts if 'find no place' in text and name in text]


@pytest.mark.parametrize('way', WAYS)
def test_of_a_layer_that_is_not_there(
    way: str, trained: Path, tmp_path: Path, warned: list[str]
) -> None:
    tensors = dict(weight=torch.zeros(3, 3), mask=torch.zeros(3, 3, dtype=torch.bool))
    path = with_mask(trained, tmp_path / 'other.pth', 'other_head', **tensors)
    WAYS[way](path, tmp_path / 'new')
    assert len(told(warned, 'other_head')) == 1


@pytest.mark.parametrize('way', WAYS)
def test_of_a_layer_that_can_have_none(
    way: str, trained: Path, tmp_path: Path, warned: list[str]
) -> None:
    """Training would move what it prunes; looking at the network does not."""
    weight = load_checkpoint_file(trained)['state_dict'][f'{NORM}.weight']
    mask = torch.arange(len(weight)) % 2 == 0
    path = with_mask(trained, tmp_path / 'norm.pth', NORM, weight=weight * mask, mask=mask)
    if way in TRAININGS:
        message = rf'masks that no layer can take: {NORM}\. Training would move what they'
        with pytest.raises(CheckpointError, match=message) as caught:
            WAYS[way](path, tmp_path / 'new')
        assert len(str(caught.value).splitlines()) == 1
        assert not list((tmp_path / 'new').glob('*.pth'))
        path = with_mask(trained, path, NORM, mask=torch.ones_like(mask))  # it prunes nothing
    WAYS[way](path, tmp_path / 'new')
    assert len(told(warned, NORM)) == 1


def test_of_weights_that_are_not_zero(trained: Path, tmp_path: Path) -> None:
    """What a mask prunes need not be zero in a file; the message claims no zeros."""
    mask = torch.arange(6) % 2 == 0
    path = with_mask(trained, tmp_path / 'norm.pth', NORM, weight=torch.ones(6), mask=mask)
    with pytest.raises(CheckpointError, match='no layer can take') as caught:
        load_from(path, tmp_path / 'new')
    assert 'zero' not in str(caught.value)


@pytest.mark.parametrize('way', WAYS)
def test_nothing_is_said_where_all_have_one(
    way: str, trained: Path, tmp_path: Path, warned: list[str]
) -> None:
    name = 'backbone.stages.0.0.pointwise_conv1'
    weight = load_checkpoint_file(trained)['state_dict'][f'{name}.weight']
    mask = torch.rand_like(weight) < 0.5
    path = with_mask(trained, tmp_path / 'scope.pth', name, weight=weight * mask, mask=mask)
    WAYS[way](path, tmp_path / 'new')
    assert warned == []


def test_of_the_output_norms_of_a_backbone(
    trained: Path, tmp_path: Path, warned: list[str]
) -> None:
    """A backbone may lack them, and then their masks as well."""
    mask = torch.arange(8) % 2 == 0
    weight = torch.ones(8) * mask
    path = with_mask(trained, tmp_path / 'norm.pth', OUTPUT, weight=weight, mask=mask)
    with pytest.raises(CheckpointError, match='masks that no layer can take: norm3'):
        load_pretrained(tiny_net(), path)
    load_pretrained(tiny_net(output_norm=False), path)
    assert len(told(warned, 'norm3')) == 1
