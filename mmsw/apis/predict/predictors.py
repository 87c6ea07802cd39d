"""From images to outcomes: whole images in batches, or large ones in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmsw.errors import UsageError
from mmsw.wording import short

from ..image_way import PreparedImage, image_way, in_batches, prepare_image
from ..inference import predict_prepared
from ..memory_shortage import shortage
from ..window_settings import class_threshold, overlap_threshold
from .class_windows import segment_in_windows
from .inputs import Source
from .object_windows import detect_in_windows
from .outcome import Objects, Outcome, outcome_of
from .plan import PredictOptions


@dataclass(frozen=True)
class Loaded:
    """An image on its way.

    Attributes:
        source: Where it comes from.
        frame: Its number in a video, from 0; ``None`` for an image.
        image: As the loader gave it.
        prepared: What the model takes; ``None`` where windows are prepared instead.
    """

    source: Source
    frame: int | None
    image: np.ndarray
    prepared: PreparedImage | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return self.source.path if self.frame is None else f'{self.source.path}, frame {self.frame}'


Failed = Callable[[Loaded, Exception], None]


def outcomes(
    model: nn.Module, images: Iterable[Loaded], options: PredictOptions, failed: Failed
) -> Iterator[tuple[Loaded, Outcome]]:
    """Predict images, in order.

    Args:
        model: What :func:`mmsw.apis.init_model` returned.
        images: Asked for as they are needed.
        options: Batch size, window, least score.
        failed: Called for an image that the model cannot take; it may raise.

    Raises:
        UsageError: If memory does not suffice.
    """
    for batch in in_batches(images, 1 if options.window else options.batch_size, _alike):
        try:
            found = _predict(model, batch, options)
        except Exception as error:
            _explain(error, options)
            if len(batch) == 1:
                failed(batch[0], error)
            else:  # alone, so that one image spoils no other
                yield from outcomes(model, batch, replace(options, batch_size=1), failed)
        else:
            yield from zip(batch, found, strict=True)


def _alike(item: Loaded) -> object:
    return None if item.prepared is None else item.prepared.size


def _predict(model: nn.Module, batch: Sequence[Loaded], options: PredictOptions) -> list[Outcome]:
    if options.window is None:
        results = predict_prepared(model, [item.prepared for item in batch])
        return [outcome_of(result.cpu(), options.score_thr) for result in results]
    return [_in_windows(model, item.image, options) for item in batch]


def _in_windows(model: nn.Module, image: np.ndarray, options: PredictOptions) -> Outcome:
    segments = image_way(model).scope == 'mmseg'

    def results(crops: Iterable[np.ndarray]) -> Iterator[BaseDataElement]:
        prepared = (prepare_image(model, crop, place) for place, crop in enumerate(crops))
        for batch in in_batches(prepared, options.batch_size, lambda item: item.size):
            yield from predict_prepared(model, batch, keep_logits=segments)

    if segments:
        logits = lambda crops: map(_logits, results(crops))  # noqa: E731
        return segment_in_windows(
            image, options.window, options.overlap, logits, class_threshold(model)
        )

    def objects(crops: Iterable[np.ndarray]) -> Iterator[Objects]:
        for result in results(crops):
            found = outcome_of(result.cpu(), options.score_thr)
            if not isinstance(found, Objects):
                raise UsageError('windows of this detector have no pred_instances to be merged')
            yield found

    return detect_in_windows(
        image, options.window, options.overlap, objects, overlap_threshold(model)
    )


def _logits(result: BaseDataElement) -> Tensor:
    if 'seg_logits' not in result:
        raise UsageError('windows need the logits of the segmentor, and it gives no seg_logits')
    return result.seg_logits.data


def _explain(error: Exception, options: PredictOptions) -> None:
    """Raise what concerns all images: a wrong use, and memory that does not suffice."""
    if isinstance(error, UsageError):
        raise error
    if shortage(error):
        smaller = '--batch-size 1' if options.batch_size > 1 else '--window 1024 1024'
        if options.window and options.batch_size == 1:
            smaller = 'a smaller --window'
        raise UsageError(
            f'there is not enough memory for the images ({short(error, 120)}): try {smaller}, or '
            '--device cpu'
        ) from error


def to_loader(model: nn.Module, frame: np.ndarray) -> np.ndarray:
    """A frame of a video as the loader of the config would give it: grey for a model of grey.

    Args:
        model: The model.
        frame: BGR, uint8, ``[H, W, 3]``.
    """
    way = image_way(model)
    grey = getattr(way.file.transforms[0], 'color_type', None) == 'grayscale'
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if grey else frame
