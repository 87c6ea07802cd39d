"""Other networks on own data: they build, learn by their own optimizer, and can be compared."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from config_helpers import ROOT, build_model
from mmengine.optim import build_optim_wrapper
from own_data_helpers import CLASSES, TINY, load

from mmsw.apis import UsageError, build_runner, register_toolbox
from mmsw.apis.config import set_pretrained
from mmsw.benchmarks.transfer.hook import TransferHook
from mmsw.benchmarks.transfer.plan import TransferSettings, run_config
from mmsw.benchmarks.transfer.study import TransferStudy

for _package in ('mmseg', 'mmdet'):
    pytest.importorskip(_package, reason=f'{_package}: not installed')
pytestmark = pytest.mark.usefixtures('plain_config_text')
# config -> that of the shift-wise network beside it, optimizer, what the optimizer has groups of
OTHERS = {
    'own_segmentation_r50': ('own_segmentation_sw_t', 'SGD'),
    'own_segmentation_swin_t': ('own_segmentation_sw_t', 'AdamW'),
    'own_segmentation_r18': ('own_segmentation_sw_mini', 'AdamW'),
    'own_mask_rcnn_r50': ('own_mask_rcnn_sw_t', 'SGD'),
    'own_mask_rcnn_swin_t': ('own_mask_rcnn_sw_t', 'AdamW'),
    'own_retinanet_r18': ('own_retinanet_sw_mini', 'AdamW'),
}
CONVNEXT = 'own_segmentation_convnext_t'
SAME = ('train_dataloader', 'val_dataloader', 'train_cfg', 'param_scheduler', 'val_evaluator')


def test_every_network_is_here() -> None:
    shift_wise = {path.stem for path in (ROOT / 'configs').glob('own_*_sw_*.py')}
    assert {path.stem for path in (ROOT / 'configs').glob('own_*.py')} - shift_wise == {
        *OTHERS,
        CONVNEXT,
    }


@pytest.mark.parametrize('name', OTHERS)
def test_only_the_network_and_its_optimizer_differ(name: str) -> None:
    ours, optimizer = OTHERS[name]
    cfg, beside = load(name, classes=CLASSES), load(ours, classes=CLASSES)
    for key in SAME:
        assert cfg[key] == beside[key], key
    assert cfg.model.backbone.init_cfg.type == 'Pretrained'
    set_pretrained(cfg, False)
    assert cfg.model.backbone.init_cfg is None
    # on meta no weight is drawn; Swin looks at values when it is built
    with torch.device('cpu' if 'swin' in name else 'meta'):
        model = build_model(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper.optimizer).__name__ == optimizer
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


def test_convnext_needs_mmpretrain() -> None:
    cfg = load(CONVNEXT, classes=CLASSES)
    if find_spec('mmpretrain') is None:
        with pytest.raises(UsageError, match=r"names 'mmpretrain\.ConvNeXt' of mmpretrain, which"):
            register_toolbox(cfg)
        return
    set_pretrained(cfg, False)
    model = build_model(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert len({group['lr'] for group in wrapper.param_groups}) > 3


def study(folder: Path, data: Path, names: list[str], **settings) -> TransferStudy:
    configs = [(None, ROOT / 'configs' / f'{name}.py') for name in names]
    configs += settings.pop('configs', [])
    options = TINY | {'own_data.classes': CLASSES, 'own_data.crop_size': 32}
    given = dict(out=folder, starts=(), seeds=1, budgets={}, evaluations=1) | settings
    return TransferStudy(
        configs, {'seg': data}, options, TransferSettings(**given), lambda line: None
    )


def test_networks_are_compared_from_what_their_configs_name(
    segmentation: Path, tmp_path: Path
) -> None:
    names = ['own_segmentation_sw_mini', 'own_segmentation_r18']
    found = study(tmp_path, segmentation, names)
    assert (found.settings.starts, found.settings.budgets) == (('config',), {'seg': 2})
    found.check()
    ours, other = found.plan()
    for run, name in ((ours, names[0]), (other, names[1])):
        assert run.name == f'seg-{name}-config-seed0'
        assert run.network.cfg.data_root == str(segmentation)
        cfg = run_config(run, found.settings)
        assert cfg.model.backbone.init_cfg is None  # the hook fills it, after all is drawn
    assert cfg.custom_hooks[-1].init_cfg.checkpoint == 'open-mmlab://resnet18_v1c'
    assert run_config(ours, found.settings).custom_hooks[-1].init_cfg is None
    scratch = study(tmp_path, segmentation, names, starts=('scratch',)).plan()
    assert {run.digest for run in scratch}.isdisjoint({ours.digest, other.digest})


def test_a_run_starts_as_its_config_says(segmentation: Path, tmp_path: Path) -> None:
    cfg = load('own_segmentation_r18', segmentation, classes=CLASSES)
    set_pretrained(cfg, False)
    backbone = build_model(cfg).backbone
    torch.save({'state_dict': backbone.state_dict()}, tmp_path / 'start.pth')
    mine = tmp_path / 'mine.py'
    mine.write_text(
        f"""_base_ = [{str(ROOT / 'configs/own_segmentation_r18.py')!r}]
model = dict(backbone=dict(init_cfg=dict(checkpoint={str(tmp_path / 'start.pth')!r})))
"""
    )
    found = study(tmp_path / 'out', segmentation, [], configs=[(None, mine)])
    (run,) = found.plan()
    runner = build_runner(run_config(run, found.settings))
    runner.train_loop  # noqa: B018, builds what the hook looks at
    hook = next(hook for hook in runner.hooks if isinstance(hook, TransferHook))
    hook.begin(runner, runner.model)
    for name, value in runner.model.backbone.state_dict().items():
        assert torch.equal(value, backbone.state_dict()[name]), name
