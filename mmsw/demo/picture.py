"""Scenes side by side: photograph, truth, and what networks make of it, one row each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmsw.figure import INK, figure_of
from mmsw.whole_file import write_whole

_DIM = 0.4  # brightness of a photograph under a label map
_OPACITY = 0.88  # of the classes on it
_MASK_OPACITY = 0.45  # of an object's mask, under which its digit is seen
_WIDTH = 8.65  # inches; twice 830 pixels
_LEFT = 1.2  # for the names of the rows
_BELOW = 0.16  # a row, for the scores of its scenes
_DPI = 192


@dataclass(frozen=True)
class Box:
    """An object on a tile.

    Attributes:
        corners: Left, top, right, bottom, in pixels.
        colour: RGB, 0..255.
        text: Written at its corner; may be empty.
    """

    corners: tuple[float, float, float, float]
    colour: Sequence[int]
    text: str = ''


@dataclass(frozen=True)
class Tile:
    """One scene in one row.

    Attributes:
        image: RGB, uint8, ``[H, W, 3]``.
        caption: Below it; may be empty.
        boxes: On it.
    """

    image: np.ndarray
    caption: str = ''
    boxes: Sequence[Box] = field(default=())


@dataclass(frozen=True)
class PictureRow:
    """The scenes as one network, or the truth, has them.

    Attributes:
        name: At the left; its first line is bold.
        tiles: One per scene.
    """

    name: str
    tiles: Sequence[Tile]


def draw_scenes(
    rows: Sequence[PictureRow],
    legend: Sequence[tuple[str, Sequence[int]]],
    path: str | os.PathLike[str],
) -> None:
    """Write a PNG: one column per scene, the rows below each other, and a legend.

    Args:
        rows: At least one, all of the same number of scenes.
        legend: Names and RGB, 0..255, of the classes.
        path: File to write; replaced if it exists, and whole if it is there.
    """
    columns = len(rows[0].tiles)
    side = (_WIDTH - _LEFT) / max(columns, 3)
    width = _LEFT + side * columns
    tall = side * max(_proportion(tile.image) for row in rows for tile in row.tiles)
    below = [_BELOW * any(tile.caption for tile in row.tiles) for row in rows]
    bottom = 0.5
    height = tall * len(rows) + sum(below) + bottom
    with figure_of(height, width) as figure:
        figure.set_layout_engine('none')
        top = height
        for row, caption in zip(rows, below, strict=True):
            top -= tall
            name, _, more = row.name.partition('\n')
            middle = (top + tall / 2) / height
            figure.text(0.05 / width, middle, name, fontsize=9, fontweight='bold', va='bottom')
            figure.text(0.05 / width, middle - 0.02 / height, more, fontsize=8, va='top')
            for column, tile in enumerate(row.tiles):
                left = _LEFT + side * column
                place = (left / width, top / height, side * 0.98 / width, tall * 0.98 / height)
                _draw_tile(figure.add_axes(place), tile)
            top -= caption
        _draw_legend(figure, legend)
        options = dict(dpi=_DPI, facecolor='white', pil_kwargs={'optimize': True})
        write_whole(Path(path), lambda temporary: figure.savefig(temporary, **options))


def paint(
    photo: np.ndarray, labels: np.ndarray, colours: np.ndarray, unpainted: Sequence[int] = (0,)
) -> np.ndarray:
    """Lay classes over a dimmed grey photograph.

    Args:
        photo: RGB, uint8, ``[H, W, 3]``.
        labels: ``[H, W]``; numbers that no class has are not painted.
        colours: RGB per class ``[n, 3]``, 0..255.
        unpainted: Classes that are not painted either, as a background.

    Returns:
        RGB, uint8, ``[H, W, 3]``.
    """
    grey = np.repeat(photo.mean(2, keepdims=True), 3, 2) * _DIM
    painted = (labels < len(colours)) & ~np.isin(labels, unpainted)
    layer = colours[np.where(painted, labels, 0)]
    mixed = np.where(painted[..., None], grey + _OPACITY * (layer - grey), grey)
    return mixed.round().astype(np.uint8)


def paint_masks(
    photo: np.ndarray, masks: Sequence[np.ndarray], colours: Sequence[Sequence[int]]
) -> np.ndarray:
    """Lay the masks of objects over a photograph, the last one on top.

    Args:
        photo: RGB, uint8, ``[H, W, 3]``.
        masks: Bool, ``[H, W]``, one per object.
        colours: RGB per object, 0..255.

    Returns:
        RGB, uint8, ``[H, W, 3]``.
    """
    mixed = photo.astype(float)
    for mask, colour in zip(masks, colours, strict=True):
        layer = photo[mask] + _MASK_OPACITY * (np.asarray(colour, float) - photo[mask])
        mixed[mask] = layer
    return mixed.round().astype(np.uint8)


def _proportion(image: np.ndarray) -> float:
    """Height over width."""
    return image.shape[0] / image.shape[1]


def _draw_tile(axes: Any, tile: Tile) -> None:
    from matplotlib.patches import Rectangle

    axes.imshow(tile.image, interpolation='nearest')
    axes.set_axis_off()
    height, width = tile.image.shape[:2]
    for box in tile.boxes:
        left, top, right, bottom = box.corners
        colour = np.asarray(box.colour, float) / 255
        axes.add_patch(
            Rectangle(
                (left, top), right - left, bottom - top, fill=False, edgecolor=colour,
                linewidth=1.1,
            )
        )  # fmt: skip
        if box.text:
            dark = float(colour @ (0.299, 0.587, 0.114)) < 0.5
            axes.text(
                min(max(left, 0), width * 0.84), max(top, height * 0.07), box.text, fontsize=8,
                va='bottom', color='white' if dark else 'black', clip_on=True,
                bbox=dict(facecolor=colour, edgecolor='none', pad=0.8),
            )  # fmt: skip
    axes.text(0.5, -0.02, tile.caption, transform=axes.transAxes, ha='center', va='top', fontsize=8)


def _draw_legend(figure: Any, legend: Sequence[tuple[str, Sequence[int]]]) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=np.asarray(colour, float) / 255, label=name) for name, colour in legend
    ]
    figure.legend(
        handles=patches, loc='lower center', ncols=-(-len(patches) // 2), fontsize=8.5,
        labelcolor=INK, handlelength=1.1, handleheight=1.1, columnspacing=1.6, borderaxespad=0.2,
    )  # fmt: skip
