"""A config of a toolbox with another backbone, written as a user writes it, and one step of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmsw.apis import register_toolbox
from mmsw.models import ShiftWiseNet

DIMS = [8, 16, 24, 32]
SIDE = 64  # of the images, in pixels


def shift_wise(version: str = 'v2', out_indices: tuple[int, ...] = (0, 1, 2, 3)) -> dict:
    """The backbone of a user's config, narrow; in earnest it has ``arch='tiny'`` instead."""
    return dict(
        _delete_=True,
        type='ShiftWiseNet',
        arch=dict(depths=[1, 1, 1, 1], dims=DIMS),
        version=version,
        big_kernels=(9, 7, 7, 5),
        layer_scale_init_value=1.0,
        out_indices=out_indices,
    )


# What makes the heads and their work small, wherever it stands in a model.
SMALLER = dict(
    batch_augments=None,
    fc_out_channels=32,
    feedforward_channels=64,
    max_per_img=4,
    nms_pre=20,
    num=16,
    num_convs=1,
    num_dn_queries=4,
    num_grids=[4, 3, 3, 2, 2],
    num_layers=1,
    num_points=64,
    num_proposals=4,
    num_queries=20,
    stacked_convs=1,
    subdivision_num_points=16,
)

_AS_THEY_ARE = ('ShiftWiseNet', 'CondInstMaskHead')  # the latter's parameters are counted elsewhere


def build(folder: Path, base: str, change: dict, options: dict | None = None) -> nn.Module:
    """The model of a config that inherits from a toolbox's, with the weights of the beginning.

    Args:
        folder: Where the config is written.
        base: The config of the toolbox.
        change: What the user's ``model`` says.
        options: What ``--cfg-options`` says beside it.
    """
    path = folder / 'config.py'
    path.write_text(f'_base_ = {base!r}\nmodel = {change!r}\n', encoding='utf-8')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    _make_smaller(cfg.model)
    if 'size' in cfg.model.data_preprocessor:  # of the crops of mmseg
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
    MMLogger.get_current_instance().setLevel('ERROR')  # how each weight was initialised
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))
        model.init_weights()
    return model


def _make_smaller(part: Any) -> None:
    """Put the small numbers in; a shift-wise backbone stays as the user wrote it."""
    if isinstance(part, list):
        for item in part:
            _make_smaller(item)
    if not isinstance(part, dict) or part.get('type') in _AS_THEY_ARE:
        return
    if part.get('type') == 'DynamicConv':
        part.feat_channels = 8
    if part.get('type') == 'SparseRoIHead':
        heads = {key: part[key][:2] for key in ('bbox_head', 'mask_head') if key in part}
        part.update(heads, num_stages=2, stage_loss_weights=part.stage_loss_weights[:2])
    if part.get('type') == 'IterativeDecodeHead':
        part.update(num_stages=1, kernel_update_head=part.kernel_update_head[:1])
    for key, value in part.items():
        if key in SMALLER and type(value) in (int, list):
            part[key] = SMALLER[key]
        else:
            _make_smaller(value)


def learn_and_predict(model: nn.Module, scope: str, inputs: list, samples: list) -> list[Any]:
    """Loss, backward pass and prediction, as mmengine's loops go about it.

    Returns:
        The predictions.
    """
    for counter in ('iter', 'epoch'):  # the runner tells them
        MessageHub.get_current_instance().update_info(counter, 0)
    with DefaultScope.overwrite_default_scope(scope):
        batch = dict(inputs=inputs, data_samples=copy.deepcopy(samples))
        losses = model.train()(**model.data_preprocessor(batch, True), mode='loss')
        loss, named = model.parse_losses(losses)
        loss.backward()
        assert torch.isfinite(loss), named
        with torch.no_grad():
            results = model.eval().test_step(
                dict(inputs=inputs, data_samples=copy.deepcopy(samples))
            )
    assert isinstance(model.backbone, ShiftWiseNet)
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert any(parameter.grad.any() for parameter in model.backbone.stages[0].parameters())
    return results
