"""Masks of objects as COCO writes them: compressed run lengths."""

from __future__ import annotations

import numpy as np

from .outcome import Mask


def encode(mask: Mask, height: int, width: int) -> dict:
    """Run lengths of a mask in its whole image, which is never made.

    Args:
        mask: Pixels of an object.
        height: Of the image.
        width: Of the image.

    Returns:
        ``{'size': [height, width], 'counts': text}``, as :func:`pycocotools.mask.encode` gives it.
    """
    from pycocotools import mask as coco

    pixels = mask.pixels[: height - mask.y, : width - mask.x]
    rows, columns = pixels.shape
    padded = np.zeros((columns, rows + 2), np.int8)
    padded[:, 1:-1] = pixels.T
    change = np.diff(padded, axis=1)
    column, begin = np.nonzero(change == 1)  # runs, column after column
    _, end = np.nonzero(change == -1)
    first = (mask.x + column) * height + mask.y
    borders = np.column_stack([first + begin, first + end]).ravel()
    # a run that ends at the bottom goes on at the top of the next column
    same = np.flatnonzero(borders[1:-1:2] == borders[2::2])
    borders = np.delete(borders, np.concatenate([2 * same + 1, 2 * same + 2]))
    counts = np.diff(np.concatenate([[0], borders, [height * width]]))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    plain = {'size': [height, width], 'counts': counts.astype(int).tolist()}
    packed = coco.frPyObjects(plain, height, width)
    return {'size': [height, width], 'counts': packed['counts'].decode('ascii')}
