"""The backbone of a config on its own."""

from __future__ import annotations

import copy

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmsw.errors import UsageError

from .config import config_name, register_toolbox
from .model_building import refusals_explained


def backbone_settings(cfg: Config) -> dict:
    """Arguments of the backbone of a config, ``type`` included, without what it starts from.

    Raises:
        UsageError: If the model has no backbone.
    """
    backbone = (cfg.get('model') or {}).get('backbone')
    if backbone is None:
        raise UsageError(f'the model of {config_name(cfg)} has no backbone')
    settings = copy.deepcopy(backbone.to_dict())
    for key in ('init_cfg', 'pretrained'):
        settings.pop(key, None)
    return settings


def build_backbone(cfg: Config) -> nn.Module:
    """The backbone of a config as its class's constructor leaves it, with BN for SyncBN.

    Raises:
        UsageError: If the model has no backbone, its constructor refuses the settings, or its
            toolbox is not installed.
    """
    with (
        DefaultScope.overwrite_default_scope(register_toolbox(cfg)),
        refusals_explained(cfg, 'backbone'),
    ):
        return revert_sync_batchnorm(MODELS.build(backbone_settings(cfg)))
