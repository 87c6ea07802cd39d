"""Pictures with what a model sees in them, and a line of text about it."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.structures import BaseDataElement
from torch import nn

from mmsw.errors import UsageError
from mmsw.whole_file import write_whole
from mmsw.wording import listed

from .image_way import load_image
from .images import check_files, displayable
from .inference import inference

_SUFFIXES = ('.png', '.jpg', '.jpeg')
_MOST = 5  # classes that a line names


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
        _write(draw(model, image, result, score_thr, opacity), picture)
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
    image = displayable(image)
    if 'pred_sem_seg' in result:
        from mmseg.structures import SegDataSample
        from mmseg.visualization import SegLocalVisualizer

        visualizer, options = SegLocalVisualizer(name='mmsw_annotate_seg', alpha=opacity), {}
        # mmseg draws tensors of a single pixel wrong, arrays right.
        result = SegDataSample(pred_sem_seg=result.pred_sem_seg.cpu().numpy())
    else:
        from mmdet.visualization import DetLocalVisualizer

        width = max(1, round(min(image.shape[:2]) / 250))
        visualizer = DetLocalVisualizer('mmsw_annotate_det', line_width=width, alpha=opacity)
        options = {'pred_score_thr': score_thr}
    visualizer.dataset_meta = model.dataset_meta
    random_state = np.random.get_state()
    np.random.seed(0)  # mmdet varies the colours of masks
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='.*out of bounds')  # boxes at the border
            visualizer.add_datasample('', image[..., ::-1].copy(), result, draw_gt=False, **options)
    finally:
        np.random.set_state(random_state)
    return np.ascontiguousarray(visualizer.get_image()[..., ::-1])


def describe(model: nn.Module, result: BaseDataElement, score_thr: float = 0.3) -> str:
    """One line: objects per class, or classes with their share of the area, the most first."""
    classes = model.dataset_meta['classes']
    if 'pred_sem_seg' in result:
        labels = result.pred_sem_seg.data.flatten()
        counts = labels.bincount(minlength=len(classes)).double() / labels.numel()
        order = counts.argsort(descending=True, stable=True)[: (counts > 0).sum()].tolist()
        return listed([f'{_name(classes, index)} {counts[index]:.1%}' for index in order], _MOST)
    kept = result.pred_instances[result.pred_instances.scores >= score_thr]
    found = Counter(kept.labels.tolist()).most_common()
    parts = []
    for label, count in found:
        best = kept.scores[kept.labels == label].max()
        parts.append(f'{count} x {_name(classes, label)} (best {best:.2f})')
    number = len(kept)
    total = f'{number} object{"" if number == 1 else "s"} of score {score_thr:g} or more'
    return f'{total}: {listed(parts, _MOST)}' if parts else total


def _name(classes: Sequence[str], index: int) -> str:
    return classes[index] if index < len(classes) else f'class {index}'


def _write(picture: np.ndarray, path: Path) -> None:
    _, content = cv2.imencode(path.suffix.lower(), picture)
    write_whole(path, lambda temporary: temporary.write_bytes(content.tobytes()))
