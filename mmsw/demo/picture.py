"""Scenes side by side: input, truth and prediction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsw.whole_file import write_whole

_DIM = 0.4  # brightness of a photograph under a label map
_OPACITY = 0.88  # of the classes on it
_COLUMN_INCHES = 2.1
_DPI = 96
_INK = '#222222'


@dataclass(frozen=True)
class PictureScene:
    """One scene to draw.

    Attributes:
        photo: RGB, uint8, ``[H, W, 3]``.
        truth: Class per pixel, ``[H, W]``; 255 where there is none.
        prediction: Class per pixel, ``[H, W]``.
    """

    photo: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def draw_scenes(
    scenes: Sequence[PictureScene],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    path: str | os.PathLike[str],
) -> None:
    """Write a PNG: one column per scene, input over truth over prediction, and a legend.

    Args:
        scenes: At least one.
        classes: Names of the classes; the first is the background, which is not painted.
        palette: RGB per class, 0..255.
        path: File to write; replaced if it exists, and whole if it is there.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = np.asarray(palette, float)
    columns = len(scenes)
    figure = Figure(figsize=(_COLUMN_INCHES * columns + 0.3, _COLUMN_INCHES * 3 + 0.75))
    axes = figure.subplots(3, columns, squeeze=False)
    for column, scene in enumerate(scenes):
        pictures = (
            scene.photo,
            paint(scene.photo, scene.truth, colours),
            paint(scene.photo, scene.prediction, colours),
        )
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture, interpolation='nearest')
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for row, name in enumerate(('input', 'truth', 'prediction')):
        axes[row, 0].set_ylabel(name, fontsize=12, color=_INK, labelpad=6)
    patches = [
        Patch(facecolor=colour / 255, label=name)
        for name, colour in zip(classes[1:], colours[1:], strict=True)
    ]
    figure.legend(
        handles=patches,
        loc='lower center',
        ncols=-(-len(patches) // 2),
        frameon=False,
        fontsize=9.5,
        labelcolor=_INK,
        handlelength=1.1,
        handleheight=1.1,
        columnspacing=1.6,
    )
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.3 / width, right=1 - 0.04 / width, top=1 - 0.04 / height, bottom=0.67 / height,
        wspace=0.03, hspace=0.03,
    )  # fmt: skip
    options = {'dpi': _DPI, 'pil_kwargs': {'optimize': True}}
    write_whole(Path(path), lambda temporary: figure.savefig(temporary, **options))


def paint(photo: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Lay classes over a dimmed grey photograph.

    Args:
        photo: RGB, uint8, ``[H, W, 3]``.
        labels: ``[H, W]``; class 0 and numbers that no class has are not painted.
        colours: RGB per class ``[n, 3]``, 0..255.

    Returns:
        RGB, uint8, ``[H, W, 3]``.
    """
    grey = np.repeat(photo.mean(2, keepdims=True), 3, 2) * _DIM
    painted = (labels > 0) & (labels < len(colours))
    layer = colours[np.where(painted, labels, 0)]
    mixed = np.where(painted[..., None], grey + _OPACITY * (layer - grey), grey)
    return mixed.round().astype(np.uint8)
