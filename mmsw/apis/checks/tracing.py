"""``efficient_conv_bn_eval`` of a config, for which mmengine traces parts of the model."""

from __future__ import annotations

import logging
from operator import attrgetter

from mmengine.config import Config
from torch import nn

from mmsw.errors import UsageError
from mmsw.models import ShiftWiseConv2d, ShiftWiseNet, SLaK

OPTION = 'efficient_conv_bn_eval'


def leave_shift_wise_untraced(cfg: Config, model: nn.Module, logger: logging.Logger) -> None:
    """Take this project's backbones out of what mmengine is to trace.

    mmengine looks there for batch norms that follow a convolution. A shift-wise backbone has none,
    so nothing is lost; SLaK has some, and would lose a little time in evaluation. How either runs
    depends on the size of the images, which a trace would fix.

    Args:
        cfg: The config; the option is changed in it.
        model: The model.
        logger: Where to say so.

    Raises:
        UsageError: If a part that is named holds shift-wise layers and others.
    """
    given = cfg.get(OPTION)
    names = [given] if isinstance(given, str) else list(given or [])
    kept = []
    for name in names:
        part = attrgetter(name)(model)
        if isinstance(part, ShiftWiseNet):
            logger.info(f'{OPTION}: no convolution of {name!r} has a batch norm behind it')
        elif isinstance(part, SLaK):
            logger.info(
                f'{OPTION}: {name!r} is left out, how it runs depends on the size of images'
            )
        elif any(isinstance(module, ShiftWiseConv2d) for module in part.modules()):
            raise UsageError(
                f'{OPTION} names {name!r}, which holds shift-wise layers and cannot be traced: '
                'name the parts of it that have none'
            )
        else:
            kept.append(name)
    if kept != names:
        cfg[OPTION] = kept or None
