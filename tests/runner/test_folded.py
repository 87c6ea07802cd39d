"""Folded layers are refused where they would be trained, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint
from tiny_run import TinyModel, tiny_config, tiny_net
from torch import Tensor, nn

from mmsw.apis import build_runner
from mmsw.apis.complexity_report import count_complexity
from mmsw.checkpoint import CheckpointError, load_checkpoint_file, save_checkpoint_file
from mmsw.checkpoint.folded import folded_layers, refuse_folded_layers
from mmsw.errors import StateDictError, UsageError
from mmsw.models import ShiftWiseConv2d

FIRST = 'stages.0.0'


def own_runner(cfg: Config, resume: Path | None = None) -> Runner:
    """mmengine's, with a hook of mmsw."""
    cfg.custom_hooks = [dict(type='SparsityReportHook')]
    if resume is not None:
        cfg.update(load_from=str(resume), resume=True)
    return Runner.from_cfg(cfg)


def from_its_folded_file(cfg: Config, folder: Path) -> Config:
    """The config, which now starts from a file of its own model with the backbone folded."""
    model = MODELS.build(cfg.model)
    model.backbone.switch_to_deploy()
    save_checkpoint_file({'state_dict': model.state_dict()}, folder / 'file.pth')
    cfg.load_from = str(folder / 'file.pth')
    return cfg


RUNNERS: dict[str, Callable[..., Runner]] = {
    'mmsw': lambda cfg, resume=False: build_runner(cfg, resume=resume),
    'mmengine': own_runner,
}


@MODELS.register_module()
class Distilled(TinyModel):
    """Learns from the maps of a teacher."""

    def __init__(self, backbone: dict, teacher: dict, frozen: bool = True, **kwargs) -> None:
        super().__init__(backbone, **kwargs)
        self.teacher = MODELS.build(teacher).eval().requires_grad_(not frozen)

    def forward(self, inputs: Tensor, label: Tensor | None = None, mode: str = 'tensor'):
        found = super().forward(inputs, label, mode)
        if mode == 'loss':
            with torch.no_grad():
                wanted = self.teacher.eval()(inputs)[-1]
            found['distill_loss'] = F.mse_loss(self.backbone(inputs)[-1], wanted)
        return found


@MODELS.register_module()
class Launched(TinyModel):
    """Has an attribute of the name that folded layers have."""

    deployed = True


def distilled(folder: Path, iterations: int = 2, frozen: bool = True) -> Config:
    cfg = tiny_config(folder, iterations)
    teacher = dict(cfg.model.backbone, deploy=True)
    cfg.model.update(type='Distilled', teacher=teacher, frozen=frozen)
    return cfg


@pytest.mark.parametrize('runner', RUNNERS)
def test_a_folded_network_is_not_trained(runner: str, tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.model.backbone.deploy = True
    message = rf'folded layers \(backbone\.{FIRST}, .* cannot be trained: leave deploy=True'
    with pytest.raises(UsageError, match=message) as caught:
        RUNNERS[runner](cfg).train()
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize('runner', RUNNERS)
def test_a_frozen_teacher_may_be_folded(runner: str, tmp_path: Path) -> None:
    RUNNERS[runner](distilled(tmp_path)).train()
    path = tmp_path / 'iter_2.pth'
    record = load_checkpoint_file(path)['meta']['mmsw']
    assert record['backbone'] == tiny_net().settings
    assert record['deploy'] is False
    RUNNERS[runner](distilled(tmp_path / 'on', 4), resume=path).train()
    old, new = (load_checkpoint_file(p)['state_dict'] for p in (path, tmp_path / 'on/iter_4.pth'))
    wide = f'teacher.{FIRST}.deploy_wide'
    assert torch.equal(old[wide], new[wide])


def test_a_teacher_that_is_trained_may_not_be_folded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf'folded layers \(teacher\.{FIRST}, '):
        build_runner(distilled(tmp_path, frozen=False)).train()


def test_a_file_with_a_folded_student_is_refused(tmp_path: Path) -> None:
    cfg = from_its_folded_file(distilled(tmp_path), tmp_path)
    message = rf'switch_to_deploy, and folded layers \(backbone\.{FIRST}, .* cannot be trained'
    with pytest.raises(CheckpointError, match=message):
        build_runner(cfg).train()


def test_an_attribute_of_that_name_means_nothing(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.model.type = 'Launched'
    build_runner(cfg).train()
    assert load_checkpoint_file(tmp_path / 'iter_2.pth')['meta']['mmsw']['deploy'] is False


def test_frozen_stages_may_be_folded() -> None:
    net = tiny_net(frozen_stages=4, deploy=True)
    assert len(folded_layers(net)) == 4
    refuse_folded_layers(net)
    with pytest.raises(UsageError, match=r'folded layers \(stages\.2\.0, stages\.3'):
        refuse_folded_layers(tiny_net(frozen_stages=2, deploy=True))


def test_a_layer_belongs_to_the_part_around_it_that_has_parameters() -> None:
    layer = ShiftWiseConv2d(8, 8, 5).eval()
    layer.switch_to_deploy()
    net = nn.Sequential(nn.Sequential(layer), nn.Conv2d(8, 8, 1))
    with pytest.raises(UsageError, match=r'folded layers \(0\.0\)'):
        refuse_folded_layers(net)
    refuse_folded_layers(net.requires_grad_(False))
    refuse_folded_layers(layer)


@pytest.mark.parametrize('strict', [False, True])
def test_mmengines_loader_refuses_the_other_form(strict: bool, tmp_path: Path) -> None:
    """It goes on where a layer only reports what is wrong."""
    save_checkpoint_file(tiny_net().switch_to_deploy().state_dict(), tmp_path / 'folded.pth')
    save_checkpoint_file(tiny_net().state_dict(), tmp_path / 'whole.pth')
    with pytest.raises(StateDictError, match='is in training form, and the state dict has it fol'):
        load_checkpoint(tiny_net(), str(tmp_path / 'folded.pth'), strict=strict)
    with pytest.raises(StateDictError, match='is folded, and the state dict has it in training'):
        load_checkpoint(tiny_net(deploy=True), str(tmp_path / 'whole.pth'), strict=strict)


@pytest.mark.parametrize('strict', [False, True])
def test_mmengines_loader_refuses_other_kernels(strict: bool, tmp_path: Path) -> None:
    """Of 8 and 9 the tables are the same, and all shapes."""
    even, odd = (tiny_net(big_kernels=(kernel, 7, 5, 3)) for kernel in (8, 9))
    save_checkpoint_file(even.state_dict(), tmp_path / 'even.pth')
    with pytest.raises(CheckpointError, match=r'are \[8, 3\], those of the layer are \[9, 3\]'):
        load_checkpoint(odd, str(tmp_path / 'even.pth'), strict=strict)


def test_mmengines_loader_refuses_another_order_of_channels(tmp_path: Path) -> None:
    state = tiny_net().state_dict()
    state[f'{FIRST}.shift_wise.channel_order'] = torch.zeros(8, dtype=torch.int64)
    save_checkpoint_file(state, tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match='must be a permutation of 8 channels'):
        load_checkpoint(tiny_net(), str(tmp_path / 'file.pth'))


def test_mmengines_runner_does_not_start_from_a_folded_file(tmp_path: Path) -> None:
    cfg = from_its_folded_file(tiny_config(tmp_path), tmp_path)
    with pytest.raises(CheckpointError, match='the state dict has it folded'):
        own_runner(cfg).train()


def test_a_folded_file_is_counted_where_the_config_builds_it_folded(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path)
    cfg.model.backbone.deploy = True
    model = MODELS.build(cfg.model)
    save_checkpoint_file({'state_dict': model.state_dict()}, tmp_path / 'file.pth')
    found = count_complexity(cfg, (32, 32), tmp_path / 'file.pth')
    assert found.total == count_complexity(cfg, (32, 32)).total
    del cfg.model.backbone.deploy
    with pytest.raises(UsageError, match='count its folded form with --deploy'):
        count_complexity(cfg, (32, 32), tmp_path / 'file.pth')
