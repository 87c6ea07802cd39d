"""Text in pictures: any letters that the font has, drawn once and then copied."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        import matplotlib

        path = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
        return ImageFont.truetype(str(path), size)
    except (ImportError, OSError):
        return ImageFont.load_default()


@lru_cache(maxsize=2048)
def text_patch(text: str, size: int, colour: Colour, background: Colour) -> np.ndarray:
    """A picture of a line of text.

    Args:
        text: The line.
        size: Height of the letters in pixels.
        colour: BGR.
        background: BGR.

    Returns:
        BGR, uint8, ``[h, w, 3]``; it is shared, so do not write into it.
    """
    font = _font(size)
    pad = max(1, size // 6)
    width = int(font.getlength(text)) + 1 + 2 * pad
    picture = Image.new('RGB', (width, size + 2 * pad), background)
    # 'lm': the middle of the line, so that patches of any letters line up
    ImageDraw.Draw(picture).text((pad, size // 2 + pad), text, colour, font, anchor='lm')
    patch = np.array(picture)  # BGR, since the colours were
    patch.flags.writeable = False
    return patch


def readable_on(background: Colour) -> Colour:
    """Black or white, whichever stands out more; BGR."""
    blue, green, red = background
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else (255, 255, 255)


def text_size(height: int, width: int) -> int:
    """Height of letters for a picture, in pixels."""
    return int(np.clip(min(height, width) // 36, 11, 40))


def paste(picture: np.ndarray, patch: np.ndarray, x: int, y: int) -> None:
    """Put a patch into a picture, in place; what lies outside is cut off."""
    height, width = picture.shape[:2]
    x, y = max(0, min(x, width - patch.shape[1])), max(0, min(y, height - patch.shape[0]))
    part = patch[: height - y, : width - x]
    picture[y : y + part.shape[0], x : x + part.shape[1]] = part
