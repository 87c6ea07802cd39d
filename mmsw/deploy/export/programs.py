"""Which model has which program."""

from __future__ import annotations

from torch import nn

from mmsw.engine.model_wrapper import unwrapped
from mmsw.errors import UsageError

from .program import Program


def program_of(model: nn.Module) -> Program:
    """The program of a model for inference.

    Args:
        model: A segmentor of mmseg or a detector of mmdet, as ``mmsw.apis.init_model`` makes it
            with ``deploy=True``; it is not changed.

    Raises:
        UsageError: If the model, or a part of it, has no program; names it.
    """
    model = unwrapped(model)
    toolboxes = {kind.__module__.partition('.')[0] for kind in type(model).__mro__}
    if 'mmseg' in toolboxes:
        from .segmentor import segmentor_program

        return segmentor_program(model)
    if 'mmdet' in toolboxes:
        from .detector import detector_program

        return detector_program(model)
    raise UsageError(
        f'a {type(model).__name__} cannot be exported: a segmentor of mmseg or a detector of '
        'mmdet was expected'
    )
