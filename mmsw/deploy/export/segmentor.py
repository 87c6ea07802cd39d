"""Programs of mmseg's segmentors: images in, logits of every class at every pixel out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmseg.models import EncoderDecoder
from mmseg.models.utils.wrappers import resize
from torch import Tensor, nn

from mmsw.engine.image_channels import image_channels
from mmsw.errors import UsageError

from .model_copy import sharing_copy
from .program import Program

_NOT_NEEDED = ('auxiliary_head', 'data_preprocessor')
# Where the map at stride 32 gets its second row, if sides are rounded up, or down.
_SIDES = (33, 64)


def segmentor_program(model: nn.Module) -> SegmentorProgram:
    """The program of a segmentor of mmseg.

    Raises:
        UsageError: If it is no encoder with a decoder, or its test mode is unknown.
    """
    if not isinstance(model, EncoderDecoder):
        raise UsageError(
            f'a {type(model).__name__} cannot be exported: of mmseg, an EncoderDecoder was expected'
        )
    return SegmentorProgram(model)


class SegmentorProgram(Program):
    """A segmentor up to its logits ``[B, K, H, W]``, at the size of the images.

    Where the test mode is ``'slide'``, the images are crops: who runs the program does with them
    what ``slide_inference`` of mmseg does. Who runs it also pads, where the model's data
    preprocessor does.

    Args:
        model: A segmentor; the program shares its tensors.
    """

    task = 'segmentation'
    outputs = ('logits',)

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.settings = _settings(model)
        self.model = sharing_copy(model, without=_NOT_NEEDED)
        self.smallest = _smallest(model)
        self.eval()

    @property
    def description(self) -> str:
        parts = [self.model.backbone, getattr(self.model, 'neck', None), *_heads(self.model)]
        names = [type(part).__name__ for part in parts if part is not None]
        return f'{type(self.model).__name__} of {", ".join(names)}'

    def forward(self, image: Tensor) -> Tensor:
        """Logits of images ``[B, C, H, W]``."""
        with _resizing_unwatched():
            return self.model.encode_decode(image, [dict(img_shape=image.shape[2:])])


def _settings(model: EncoderDecoder) -> dict[str, Any]:
    mode = model.test_cfg.get('mode', 'whole')
    settings: dict[str, Any] = {'mode': mode}
    if mode == 'slide':
        for name in ('crop_size', 'stride'):
            settings[name] = [int(side) for side in model.test_cfg[name]]
    elif mode != 'whole':
        raise UsageError(
            f'the test mode {mode!r} of a {type(model).__name__} cannot be exported: '
            "'whole' or 'slide' was expected"
        )
    if model.out_channels == 1:
        settings['threshold'] = float(_heads(model)[-1].threshold)
    return settings


@torch.no_grad()
def _smallest(model: EncoderDecoder) -> int:
    """The least side whose maps have two rows: PyTorch tells maps of one row from the others."""
    for side in _SIDES[:-1]:
        maps = model.backbone(
            next(model.parameters()).new_zeros(1, image_channels(model), side, side)
        )
        if min(min(found.shape[2:]) for found in maps) > 1:
            return side
    return _SIDES[-1]


def _heads(model: EncoderDecoder) -> list[nn.Module]:
    """The decode head, or those of a cascade."""
    head = model.decode_head
    return list(head) if isinstance(head, nn.ModuleList) else [head]


@contextmanager
def _resizing_unwatched() -> Iterator[None]:
    """Inside, mmseg's ``resize`` does not look whether sizes go well together.

    It would make numbers of open sizes, and so close them.
    """
    defaults = resize.__defaults__
    resize.__defaults__ = (*defaults[:-1], False)  # the last one is ``warning``
    try:
        yield
    finally:
        resize.__defaults__ = defaults
