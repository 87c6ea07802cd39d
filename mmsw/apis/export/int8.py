"""The images that int8 takes the ranges of values from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mmengine.config import Config

from mmsw.errors import UsageError

from .exported_model import ExportedModel
from .plan import ExportPlan
from .sample_images import sample_images

_MOST = 64
_LOADERS = ('train_dataloader',)


@dataclass(frozen=True)
class Calibration:
    """Inputs of a program.

    Attributes:
        inputs: ``[1, C, H, W]`` float32 each, as the program takes them.
        source: Where they are from, in words.
    """

    inputs: tuple[np.ndarray, ...]
    source: str


def calibration_of(plan: ExportPlan, cfg: Config, eager: ExportedModel) -> Calibration | None:
    """Read the images of a calibration; ``None`` for other precisions than int8.

    Args:
        plan: Of the export.
        cfg: Config with data loaders.
        eager: What is exported, with the rule for images that its file will have.

    Raises:
        UsageError: If there are none.
        mmsw.errors.DataError: If one cannot be read.
    """
    if plan.precision != 'int8':
        return None
    samples = sample_images(plan.calibration_images, cfg, _LOADERS, _MOST, eager)
    if not samples.are_photographs:
        raise UsageError(
            'int8 takes the ranges of values from images, and the training images of the config '
            'are not here: name a folder of images like those that the model is for, with '
            '--calibrate DIR (calibrate=DIR)'
        )
    return Calibration(tuple(eager.inputs(samples.images)), samples.source)
