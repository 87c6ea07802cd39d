"""How far a receptive field reaches: the squares around its middle that hold most of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SHARES = (0.2, 0.3, 0.5, 0.99)  # those of RepLKNet's tables


class Square(NamedTuple):
    """A square around the middle of an image.

    Attributes:
        side: In pixels, odd.
        area_ratio: Share of the image's area that it covers.
    """

    side: int
    area_ratio: float


def high_contribution_squares(
    scores: np.ndarray, shares: Sequence[float] = SHARES
) -> dict[float, Square]:
    """The smallest squares around the middle that hold given shares of all contribution.

    This is the high-contribution area ratio of RepLKNet (arXiv 2203.06717, appendix). The square
    has its middle at pixel ``(H // 2, W // 2)`` and the side ``2k + 1``. The smallest ``k`` counts
    for which the sum of the scores inside is at least ``share`` of the sum of all. The ratio is the
    area of the square over that of the image. Where a square reaches over the edge, on one side of
    an even image or in a rectangle, its part inside counts, so the ratio is at most 1.

    The script that was published with RepLKNet starts at 3 x 3, has no answer where only the whole
    image holds the share, and takes the scores of :func:`log_scores`. Otherwise the two agree.

    Args:
        scores: Contribution of every pixel ``[H, W]``, finite and not negative, not all zero.
        shares: Above 0, at most 1.

    Returns:
        The square of every share.

    Raises:
        ValueError: If the scores or a share are not as expected.
    """
    scores = np.asarray(scores, np.float64)
    _check(scores, shares)
    height, width = scores.shape
    rows, columns = (np.abs(np.arange(side) - side // 2) for side in scores.shape)
    rings = np.maximum.outer(rows, columns)
    inside = np.cumsum(np.bincount(rings.ravel(), weights=scores.ravel()))
    squares = {}
    for share in shares:
        radius = int(np.searchsorted(inside, share * inside[-1]))
        area = int((rows <= radius).sum()) * int((columns <= radius).sum())
        squares[share] = Square(2 * radius + 1, area / (height * width))
    return squares


def log_scores(scores: np.ndarray) -> np.ndarray:
    """``log10(1 + scores)``: what RepLKNet's script, and those made after it, draw and count.

    It has a scale: a score of 0.01 or less stays as it is, but for a factor; scores far above 1 are
    pressed together, and the squares grow. So squares of these scores change with the gain of the
    last norm, or the unit of the pixels. Those of the scores themselves do not.
    """
    return np.log10(1 + np.asarray(scores, np.float64))


def _check(scores: np.ndarray, shares: Sequence[float]) -> None:
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f'scores must be a map [H, W], got the shape {list(scores.shape)}')
    if not np.isfinite(scores).all() or scores.min() < 0 or not scores.any():
        raise ValueError(
            'scores must be finite, not negative and not all zero, got values from '
            f'{scores.min()} to {scores.max()}'
        )
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong:
        raise ValueError(f'a share must be above 0 and at most 1, got {wrong[0]}')
