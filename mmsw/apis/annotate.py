"""Pictures with what a model sees in them, and a line of text about it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mmengine.structures import BaseDataElement
from torch import nn

from mmsw.errors import UsageError

from .image_way import load_image
from .images import check_files
from .inference import inference
from .predict.outcome import outcome_of
from .predict.overlay import draw_outcome
from .predict.writers import write_picture

_SUFFIXES = ('.png', '.jpg', '.jpeg')


def annotate_images(
    model: nn.Module,
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    score_thr: float = 0.3,
    opacity: float = 0.5,
    progress: Callable[[str], None] = print,
) -> list[Path]:
    """Write an annotated picture of every image file, and tell what is in it.

    Args:
        model: What :func:`mmsw.apis.init_model` returned.
        images: Image files.
        out: A folder, which is created; pictures get the names of the images, as ``.png`` if those
            are neither PNG nor JPEG. Or the file to write for a single image, ``.png`` or ``.jpg``.
        score_thr: Least score of objects that are drawn and told of, 0 to 1.
        opacity: Of what is drawn, 0 to 1.
        progress: Called with one line per image.

    Returns:
        The pictures, each there whole or not at all.

    Raises:
        UsageError: If an argument makes no sense, or a picture would replace an image or another
            picture.
        mmsw.datasets.DataError: If an image file is missing or damaged.
    """
    pictures = check_annotating(images, out, score_thr, opacity)
    for path, picture in zip(images, pictures, strict=True):
        image, result = load_image(model, path), inference(model, path)
        write_picture(picture, draw(model, image, result, score_thr, opacity))
        progress(f'{os.fspath(path)}: {describe(model, result, score_thr)} -> {picture}')
    return pictures


def check_annotating(
    images: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    score_thr: float = 0.3,
    opacity: float = 0.5,
) -> list[Path]:
    """Check the arguments of :func:`annotate_images` without a model.

    Returns:
        Where the pictures will go.

    Raises:
        UsageError, mmsw.datasets.DataError: As :func:`annotate_images`; files are not read.
    """
    for name, value in (('score_thr', score_thr), ('opacity', opacity)):
        if not 0 <= value <= 1:
            raise UsageError(f'{name} must be between 0 and 1, got {value}')
    check_files(images)
    out = Path(out)
    if out.suffix.lower() in _SUFFIXES and not out.is_dir():
        if len(images) != 1:
            raise UsageError(f'{out} is one file for {len(images)} images: name a folder')
        pictures = [out]
    else:
        if out.exists() and not out.is_dir():
            raise UsageError(f'{out} is a file that is no .png or .jpg; name one, or a folder')
        pictures = [out / _picture_name(Path(image)) for image in images]
    twice = [str(path) for path, count in Counter(pictures).items() if count > 1]
    if twice:
        raise UsageError(
            f'several images would be written to {", ".join(twice)}: annotate them one at a time'
        )
    own = {Path(image).resolve() for image in images}
    lost = [str(path) for path in pictures if path.resolve() in own]
    if lost:
        raise UsageError(f'{", ".join(lost)} would be replaced by its picture: name another place')
    return pictures


def _picture_name(image: Path) -> str:
    return image.name if image.suffix.lower() in _SUFFIXES else f'{image.stem}.png'


def draw(
    model: nn.Module,
    image: np.ndarray,
    result: BaseDataElement,
    score_thr: float = 0.3,
    opacity: float = 0.5,
) -> np.ndarray:
    """Draw a result on its image.

    Args:
        model: The model that made the result.
        image: BGR, uint8, ``[H, W, 3]``; others are shown as
            :func:`mmsw.apis.images.displayable` says.
        result: What :func:`mmsw.apis.inference` returned for it.
        score_thr: Least score of objects that are drawn.
        opacity: Of what is drawn.

    Returns:
        BGR, uint8, ``[H, W, 3]``.
    """
    return draw_outcome(image, outcome_of(result, score_thr), model.dataset_meta, opacity)


def describe(model: nn.Module, result: BaseDataElement, score_thr: float = 0.3) -> str:
    """One line: objects per class, or classes with their share of the area, the most first."""
    return outcome_of(result, score_thr).describe(model.dataset_meta['classes'])
