"""Label maps of mmsegmentation: the true values of a file, and which class each of them means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine import fileio

from mmsw.errors import DataError
from mmsw.wording import listed

from .label_values import IGNORED

_PALETTE_PNG = b'\x89PNG\r\n\x1a\n', 25, 3  # begin of the file; place and value of the colour type
_LOSSY = '.jpg', '.jpeg'


@dataclass(frozen=True)
class KnownClasses:
    """What a label map may hold.

    Attributes:
        number: Of the classes.
        ignored: Labels that losses and metrics leave out.
        table: uint8 ``[256]``; what the pipeline makes of each loaded label.
    """

    number: int
    ignored: frozenset[int] = frozenset({IGNORED})
    table: np.ndarray = field(default_factory=lambda: np.arange(256, dtype=np.uint8), compare=False)


class LabelMapReader:
    """Reads label maps as mmsegmentation's ``LoadAnnotations`` does, but refuses what that bends.

    mmsegmentation takes every value modulo 256, and fractions without their fraction.

    Args:
        loader: A ``LoadAnnotations`` of mmsegmentation.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.known: KnownClasses | None = None  # where the data set says what its classes are

    def values(self, info: dict, what: str) -> np.ndarray:
        """Values as they stand in the file.

        Args:
            info: Of a data set; ``seg_map_path`` is read.
            what: The label map, for messages.

        Returns:
            uint8 of ``[H, W]``; dimensions of size one are left out.

        Raises:
            DataError: If it is no map of whole numbers from 0 to 255.
            Exception: Of the storage or the decoder.
        """
        loader = self.loader
        content = fileio.get(info['seg_map_path'], backend_args=loader.backend_args)
        values = mmcv.imfrombytes(content, flag='unchanged', backend=loader.imdecode_backend)
        values = values.squeeze()
        if values.ndim > 2:
            start, place, colour_type = _PALETTE_PNG
            cure = 'save it as a picture of one channel'
            if content[: len(start)] == start and content[place] == colour_type:
                cure = "imdecode_backend='pillow' in LoadAnnotations keeps the palette's indices"
            raise DataError(
                f'{what} has shape {values.shape}, expected one class index per pixel: {cure}'
            )
        return _in_eight_bits(values, what)

    def classes(self, values: np.ndarray, info: dict, what: str) -> np.ndarray:
        """Which class each value means.

        Args:
            values: From :meth:`values`.
            info: Of the data set; ``reduce_zero_label`` and ``label_map`` are used.
            what: The label map, for messages.

        Returns:
            uint8 of the same shape.

        Raises:
            DataError: If a value means no class and is not ignored, where the classes are known.
        """
        reduces = info['reduce_zero_label']
        if self.loader.reduce_zero_label not in (None, reduces):
            raise DataError(
                f'{what} belongs to a data set with reduce_zero_label={reduces}, but its loader '
                f'says {self.loader.reduce_zero_label}: set it in the data set alone'
            )
        table = _meanings(reduces, info.get('label_map'))
        if self.known is not None:
            self._check(values, self.known.table[table], what)
        return _looked_up(table, values)

    def _check(self, values: np.ndarray, table: np.ndarray, what: str) -> None:
        number, ignored = self.known.number, self.known.ignored
        strange = (table >= number) & ~np.isin(table, list(ignored))
        found = _looked_up(strange.astype(np.uint8), values)
        if not found.any():
            return
        value = int(values[found > 0].flat[0])
        pixels = int(np.count_nonzero(values == value))
        legal = _ranges(np.flatnonzero(table < number))
        rest = _ranges(np.flatnonzero(np.isin(table, list(ignored)) & (table >= number)))
        raise DataError(
            f'{what} has the value {value} in {pixels} of its pixels, but the data set has '
            f'{number} classes; expected are {legal}, and {rest} for what is to be ignored: '
            f'{_cure(value, what)}'
        )


def _cure(value: int, what: str) -> str:
    if what.split(' of image ')[0].lower().endswith(_LOSSY):
        return 'save label maps as PNG, since JPEG changes values, and makes new ones at borders'
    return (
        'correct the label map, name every class, or leave such pixels out. In a config with own '
        f'data that is own_data.classes and own_data.ignore=({value},), in any other '
        "metainfo.classes with num_classes of the heads, and dict(type='MapLabelValues', "
        f'ignore=({value},)) behind LoadAnnotations'
    )


def _in_eight_bits(values: np.ndarray, what: str) -> np.ndarray:
    if values.dtype in (np.uint8, np.bool_):
        return values.astype(np.uint8)
    bad = values
    if values.dtype.kind in 'iuf':
        bad = values[~((values >= 0) & (values <= 255) & (np.trunc(values) == values))]
    if bad.size:
        raise DataError(
            f'{what} ({values.dtype}) holds the value {bad.flat[0]}; expected is one whole number '
            'from 0 to 255 per pixel, the index of its class: convert the label map'
        )
    return values.astype(np.uint8)


def _meanings(reduce_zero_label: bool, label_map: Mapping[int, int] | None) -> np.ndarray:
    """What mmsegmentation makes of each of the 256 values."""
    table = np.arange(256, dtype=np.uint8)
    for old, new in (label_map or {}).items():
        if 0 <= old <= 255:
            table[old] = new
    if reduce_zero_label:  # before label_map
        table = table[[IGNORED, *range(254), IGNORED]]
    return table


def _looked_up(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``table[values]`` for 256 entries, ten times as fast."""
    return cv2.LUT(values, table).reshape(values.shape)


def _ranges(values: np.ndarray) -> str:
    """``'0 to 2 and 255'`` for 0, 1, 2, 255."""
    if not len(values):
        return 'nothing'
    parts = []
    for run in np.split(values, np.flatnonzero(np.diff(values) > 1) + 1):
        parts.append(str(run[0]) if len(run) == 1 else f'{run[0]} to {run[-1]}')
    return listed(parts) if len(parts) != 2 else ' and '.join(parts)
