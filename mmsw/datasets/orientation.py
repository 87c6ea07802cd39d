"""Pictures that their EXIF data turn by a quarter: which size is the true one."""

from __future__ import annotations

import io

ORIENTATION = 0x0112  # the tag of EXIF
QUARTER_TURNS = range(5, 9)  # its values that swap height and width


def exif_hint(content: bytes, shape: tuple[int, int], wanted: tuple[int, int]) -> str | None:
    """What to do if a picture has the wrong size because of its EXIF orientation.

    Args:
        content: Of the file.
        shape: Height and width as it was loaded.
        wanted: Height and width that were expected.

    Returns:
        The reason and the cure, to follow what was found; ``None`` if this is not the reason.
    """
    from PIL import Image  # as in mmcv

    if tuple(shape) != tuple(wanted)[::-1]:
        return None
    try:
        with Image.open(io.BytesIO(content)) as picture:
            stored, turn = picture.size[::-1], picture.getexif().get(ORIENTATION)
    except Exception:  # whatever a decoder raises: it has no EXIF data to go by
        return None
    if turn not in QUARTER_TURNS:
        return None
    what, color_type = 'turned it', 'color_ignore_orientation'
    if stored == tuple(shape):
        what, color_type = 'was left out', 'color'
    return (
        f'its EXIF orientation {turn} {what} when it was loaded: set color_type={color_type!r} in '
        "the image loader of every pipeline (with imdecode_backend='cv2' or 'pillow'), or save the "
        'image again without EXIF data'
    )
