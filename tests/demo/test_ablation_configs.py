"""Configs of the ablations: what each changes, that it trains, and that it can be compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from demo_helpers import CONFIG, ROOT

from mmsw.apis import build_runner, load_config
from mmsw.benchmarks.transfer.networks import read_networks

pytest.importorskip('mmseg', reason='mmseg: absent; the configs of the ablations need it')

# What each changes in the backbone of the demonstration.
CHANGES = {
    'upernet_p_sw_scenes': dict(num_paths=1, padding='full'),
    'upernet_p2_sw_scenes': dict(num_paths=1, padding='same'),
    'upernet_sw_two_paths_scenes': dict(num_paths=2),
    'upernet_sw_branch_weights_scenes': dict(branch_weights=True),
    'upernet_sw_position_scenes': dict(position=True),
    'upernet_sw_blur_scenes': dict(big_kernels=(31, 15, 11, 11), identity='blur'),
    'upernet_sw_w110_scenes': dict(width_factor=1.1),
    'upernet_sw_w120_scenes': dict(width_factor=1.2),
    'upernet_sw_w130_scenes': dict(width_factor=1.3),
}
PATHS = {name: ROOT / f'configs/ablation/{name}.py' for name in CHANGES}


def test_all_shift_wise_ablations_are_here() -> None:
    assert {*(ROOT / 'configs/ablation').glob('upernet_*sw_*.py')} >= {*PATHS.values()}


@pytest.mark.parametrize('name', CHANGES)
def test_an_ablation_changes_one_thing(name: str) -> None:
    plain, cfg = load_config(CONFIG), load_config(PATHS[name])
    backbone = plain.model.backbone.to_dict()
    start = dict(init_cfg=dict(type='DemoNarrowInit'))
    assert cfg.model.backbone.to_dict() == {**backbone, **CHANGES[name], **start}
    for part in ('train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert cfg[part] == plain[part]


def test_a_config_imports_what_it_names() -> None:
    # In a process of its own: here, other tests have imported the demonstration.
    code = (
        'import sys; from mmsw.apis import load_config; '
        'from mmsw.apis.model_building import build_model; '
        'build_model(load_config(sys.argv[1])).init_weights()'
    )
    path = PATHS['upernet_p_sw_scenes']
    found = subprocess.run(
        [sys.executable, '-c', code, path], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize('name', CHANGES)
def test_it_trains_and_validates_on_the_demo_scenes(name: str, data: Path, tmp_path: Path) -> None:
    options = {
        f'{split}_dataloader.{key}': value
        for split in ('train', 'val', 'test')
        for key, value in (('num_workers', 0), ('persistent_workers', False))
    }
    options.update({'train_dataloader.batch_size': 2, 'train_cfg.max_iters': 2})
    options.update({'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 2})
    runner = build_runner(
        PATHS[name],
        work_dir=tmp_path,
        data_root=data / 'ADEChallengeData2016',
        cfg_options=options,
    )
    before = {key: value.clone() for key, value in runner.model.named_parameters()}
    runner.train()
    after = runner.model.named_parameters()
    changed = [key for key, value in after if (value != before[key]).any()]
    assert any('.paths.0.' in key for key in changed)
    assert any('variant.weight_h' in key for key in changed) == ('branch_weights' in name)
    assert torch.isfinite(torch.tensor(runner.message_hub.get_scalar('train/loss').current()))
    assert runner.message_hub.get_scalar('val/mIoU').current() >= 0


def test_they_can_stand_in_the_transfer_benchmark(data: Path) -> None:
    networks = read_networks([('seg', path) for path in PATHS.values()], {'seg': data}, {})
    assert [network.name for network in networks] == [*CHANGES]
    assert all(network.is_demo and network.is_shiftwise for network in networks)
