"""What the header of an image file says, without decoding the picture."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from PIL import Image

_ORIENTATION = 0x0112
_QUARTER_TURNS = range(5, 9)


@dataclass(frozen=True)
class Header:
    """Of an image file.

    Attributes:
        width: In pixels, as the image is stored.
        height: As well.
        mode: Channels and depth in the words of pillow, for instance ``'RGB'`` or ``'I;16'``.
        format: For instance ``'JPEG'``.
        orientation: Of the EXIF data; 1 stands as it is to be shown.
    """

    width: int
    height: int
    mode: str
    format: str
    orientation: int = 1

    @property
    def turned(self) -> bool:
        """Whether width and height change places when the image is shown."""
        return self.orientation in _QUARTER_TURNS


def read_header(path: str) -> Header | None:
    """Read the header of a local file.

    Args:
        path: The file.

    Returns:
        The header; ``None`` if pillow does not know the format, or the file cannot be read. Another
        decoder may know it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of large pictures
            with Image.open(path) as picture:
                return Header(*picture.size, picture.mode, picture.format, _orientation(picture))
    except Exception:  # decoders fail in their own ways; the loader of the config will judge
        return None


def _orientation(picture: Image.Image) -> int:
    if picture.format in ('JPEG', 'MPO', 'TIFF', 'WEBP') or 'exif' in picture.info:
        found = picture.getexif().get(_ORIENTATION, 1)
        return found if found in range(1, 9) else 1
    return 1  # asking a PNG would decode it
