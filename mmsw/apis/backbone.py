"""The backbone of a config on its own."""

from __future__ import annotations

import copy
import logging
import os
import re

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmsw.checkpoint import check_masks_placed, fill_network, read_checkpoint
from mmsw.checkpoint.folded import is_folded
from mmsw.checkpoint.trained import check_complete, existing_file, fill, state_dict_of, take_form
from mmsw.errors import UsageError

from .config import config_name, register_toolbox
from .model_building import refusals_explained

_PREFIX = 'backbone.'  # of its tensors in the checkpoint of a whole model
_OUTPUT_NORM = re.compile(r'norm\d\.')


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


def draw_weights(net: nn.Module) -> None:
    """Draw the weights of a backbone as a training from scratch begins, and log nothing of it."""
    if not hasattr(net, 'init_weights'):
        return  # a class of one's own, whose constructor draws them
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)  # mmengine logs a line for every parameter
    try:
        net.init_weights()
    finally:
        logger.setLevel(level)


def fill_backbone(net: nn.Module, checkpoint: str | os.PathLike[str]) -> None:
    """Fill a backbone from a checkpoint of its own, or of a whole model, whose heads are left out.

    Norms of the output maps (``norm0`` and so on), which no classification checkpoint has, keep
    their values.

    Args:
        net: The backbone.
        checkpoint: File or address: of a training run, of a pretraining, as published, or folded.

    Raises:
        UsageError: If the file does not exist.
        CheckpointError: If it is damaged, or of another network.
    """
    filename = existing_file(checkpoint, 'checkpoint')
    saved = read_checkpoint(filename)
    state = state_dict_of(saved)
    of_model = any(key.startswith(_PREFIX) for key in state)
    if not of_model and hasattr(net, 'switch_to_deploy') and not is_folded(state):
        fill_network(net, saved, filename)
        return
    for key in list(state):
        value = state.pop(key)
        if not of_model or key.startswith(_PREFIX):
            state[key.removeprefix(_PREFIX)] = value
    take_form(net, state, filename)
    for name, tensor in net.state_dict().items():
        if _OUTPUT_NORM.match(name):
            state.setdefault(name, tensor)
    check_complete(state, net, filename)
    check_masks_placed(state, net, filename, trains=False)
    fill(net, state, filename)
