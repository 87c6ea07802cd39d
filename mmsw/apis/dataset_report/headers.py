"""What the two ends of an image file say, without decoding the picture."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

from PIL import Image

from mmsw.datasets.orientation import ORIENTATION, QUARTER_TURNS

_END_MARKS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}
_END = 4096  # bytes; cameras write a little behind the mark


@dataclass(frozen=True)
class Header:
    """Of an image file.

    Attributes:
        width: In pixels, as the image is stored.
        height: As well.
        mode: Channels and depth in the words of pillow, for instance ``'RGB'`` or ``'I;16'``.
        format: For instance ``'JPEG'``.
        orientation: Of the EXIF data; 1 stands as it is to be shown.
        ends: Whether the mark that ends a JPEG or a PNG is near the end of the file.
    """

    width: int
    height: int
    mode: str
    format: str
    orientation: int = 1
    ends: bool = True

    @property
    def turned(self) -> bool:
        """Whether width and height change places when the image is shown."""
        return self.orientation in QUARTER_TURNS


def read_header(path: str) -> Header | None:
    """Read the header of a local file.

    Args:
        path: The file.

    Returns:
        The header; ``None`` if pillow does not know the format, or the file cannot be read. Another
        decoder may know it.
    """
    try:
        with warnings.catch_warnings(), open(path, 'rb') as file:
            warnings.simplefilter('ignore')  # of large pictures
            with Image.open(file) as picture:
                turn = _orientation(picture)
                file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
                ends = _END_MARKS.get(picture.format, b'') in file.read()
                return Header(*picture.size, picture.mode, picture.format, turn, ends)
    except Exception:  # decoders fail in their own ways; the loader of the config will judge
        return None


def _orientation(picture: Image.Image) -> int:
    if picture.format in ('JPEG', 'MPO', 'TIFF', 'WEBP') or 'exif' in picture.info:
        found = picture.getexif().get(ORIENTATION, 1)
        return found if found in range(1, 9) else 1
    return 1  # asking a PNG would decode it
