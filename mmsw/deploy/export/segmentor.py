"""Programs of mmseg's segmentors: images in, logits of every class at every pixel out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models import EncoderDecoder
from mmseg.models.utils.wrappers import Upsample, resize
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmsw.engine.image_channels import image_channels
from mmsw.errors import UsageError

from .model_copy import sharing_copy
from .program import Program

_LARGEST_STEP = 256  # of a backbone, in pixels
_FOR_TRAINING = ('auxiliary_head', 'data_preprocessor')


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
    what ``slide_inference`` of mmseg does. It also pads, where the data preprocessor does.

    Args:
        model: A segmentor; the program shares its tensors.
    """

    task = 'segmentation'
    outputs = ('logits',)

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.settings = _settings(model)
        self.model = _with_open_enlarging(sharing_copy(model, without=_FOR_TRAINING))
        self.smallest = _smallest(self.model, image_channels(model))
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


def _heads(model: EncoderDecoder) -> list[nn.Module]:
    """The decode head, or those of a cascade."""
    head = model.decode_head
    return list(head) if isinstance(head, nn.ModuleList) else [head]


def _smallest(model: EncoderDecoder, channels: int) -> int:
    """Least side of an image whose maps all have two rows.

    PyTorch tells a map of one row from the others when it makes a graph.
    """

    def has_two_rows(side: int) -> bool:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            try:
                maps = model.extract_feat(torch.zeros(1, channels, side, side))
            except RuntimeError:  # no room for a kernel
                return False
        return all(map_.shape[2] > 1 for map_ in maps)

    return 1 + bisect_left(range(1, _LARGEST_STEP), True, key=has_two_rows)


class _Enlarging(nn.Module):
    """What mmseg's ``Upsample`` does with a whole factor, by arithmetic that keeps sizes open.

    It would make a number of each side: ``int(side * 2.0)``.
    """

    def __init__(self, upsample: Upsample) -> None:
        super().__init__()
        self.factor = int(upsample.scale_factor)
        self.mode, self.align_corners = upsample.mode, upsample.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge maps ``[B, C, H, W]``."""
        size = [side * self.factor for side in x.shape[2:]]
        return F.interpolate(x, size, None, self.mode, self.align_corners)


def _with_open_enlarging(model: nn.Module) -> nn.Module:
    """The same model, whose sizes stay open where mmseg enlarges maps by a whole factor."""
    for part in list(model.modules()):
        for name, child in part.named_children():
            factor = child.scale_factor if type(child) is Upsample and not child.size else None
            if isinstance(factor, float) and factor.is_integer():
                setattr(part, name, _Enlarging(child))
    return model


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
