"""What the tests of the transfer benchmark have in common."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from study_helpers import ROOT, SMALL_BACKBONE, call_tool

from mmsw.benchmarks.transfer.plan import TransferSettings

TOOL = ROOT / 'tools/benchmark_transfer.py'
RECIPE = ROOT / 'configs/upernet_sw_t_ade20k.py'
SMALL = ROOT / 'tests/data/upernet_mini_ade20k.py'
COCO_RECIPE = ROOT / 'configs/cascade_mask_rcnn_sw_t_coco.py'
_LOADERS = """
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
"""
MINI = f"""
_base_ = [{str(ROOT / 'configs/demo/upernet_sw_mini_scenes.py')!r}]
model = dict(
    backbone=dict({SMALL_BACKBONE}, drop_path_rate=0.3),
    decode_head=dict(in_channels=[8, 8, 8, 8], channels=8),
)
{_LOADERS}"""
DETECTOR = f"""
_base_ = [{str(ROOT / 'configs/demo/mask_rcnn_sw_mini_scenes.py')!r}]
model = dict(
    backbone=dict({SMALL_BACKBONE}),
    neck=dict(in_channels=[8, 8, 8, 8]),
)
{_LOADERS}"""
RESNET = f"""
_base_ = [{str(ROOT / 'configs/demo/upernet_r18_scenes.py')!r}]
model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=8),
)
{_LOADERS}"""


call = partial(call_tool, TOOL)


def settings_for(out: Path, starts: Sequence[str] = ('scratch',), **more: Any) -> TransferSettings:
    more = {'seeds': 1, 'budgets': {'seg': 4}, 'evaluations': 2, 'pretrain_epochs': 2, **more}
    return TransferSettings(out=out, starts=tuple(starts), **more)
