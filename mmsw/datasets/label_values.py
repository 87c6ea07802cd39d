"""Another class, or none, for some values of label maps, while they are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from mmsw.errors import UsageError
from mmsw.registration import register

IGNORED = 255  # what mmsegmentation gives pixels without a class
BINARY_MASKS = {255: 1}  # the mapping for masks that are drawn with 0 and 255


@register(TRANSFORMS)
class MapLabelValues(BaseTransform):
    """Gives values of a label map another meaning; it stands right behind ``LoadAnnotations``::

        dict(type='LoadAnnotations'),
        dict(type='MapLabelValues', mapping={255: 1}),  # masks drawn with 0 and 255
        dict(type='MapLabelValues', ignore=(11,)),  # 11 is void

    All values are replaced at once: what one rule yields is not seen by another. The values are
    those that ``LoadAnnotations`` yields. Where ``reduce_zero_label`` or the ``label_map`` of some
    chosen classes is in use, these have been applied to the file's values before. A pipeline
    without a label map passes through.

    Args:
        mapping: From values to values, for instance ``{255: 1}``. The numbers may be text, as in a
            config in JSON.
        ignore: Values that are no class. They become 255, which training and scores leave out.

    Raises:
        UsageError: If a value is no whole number from 0 to 255, or is both mapped and ignored.

    Attributes:
        table: uint8 ``[256]``; what becomes of each value.
    """

    def __init__(
        self, mapping: Mapping[int, int] | None = None, ignore: Iterable[int] | int = ()
    ) -> None:
        if mapping is not None and not isinstance(mapping, Mapping):
            raise UsageError(
                f'MapLabelValues: mapping={mapping!r}, expected a dict from values to values, for '
                'instance {255: 1}'
            )
        if isinstance(ignore, (int, str)):
            ignore = (ignore,)
        self.mapping = {
            _value(old, 'mapping'): _value(new, 'mapping') for old, new in (mapping or {}).items()
        }
        self.ignore = tuple(_value(value, 'ignore') for value in ignore or ())
        both = sorted(self.mapping.keys() & set(self.ignore))
        if both:
            raise UsageError(
                f'MapLabelValues: {both[0]} is in mapping and in ignore; expected is one of them'
            )
        self.table = np.arange(256, dtype=np.uint8)
        for old, new in self.mapping.items():
            self.table[old] = new
        self.table[list(self.ignore)] = IGNORED

    def transform(self, results: dict) -> dict:
        """Replace the values of ``gt_seg_map``, ``[H, W]`` of any type of whole numbers."""
        values = results.get('gt_seg_map')
        if values is not None:
            results['gt_seg_map'] = self._replaced(values)
        return results

    def _replaced(self, values: np.ndarray) -> np.ndarray:
        if values.dtype in (np.uint8, np.bool_):
            values = values.astype(np.uint8, copy=False)
            return cv2.LUT(values, self.table).reshape(values.shape)
        replaced = values.copy()  # of another loader: what the table does not know stays
        for old in np.flatnonzero(self.table != np.arange(256)):
            replaced[values == old] = self.table[old]
        return replaced

    def __repr__(self) -> str:
        return f'{type(self).__name__}(mapping={self.mapping}, ignore={self.ignore})'


def _value(given: Any, argument: str) -> int:
    text = str(given)
    if isinstance(given, bool) or not (text.isdecimal() and int(text) <= 255):
        raise UsageError(
            f'MapLabelValues: {argument} has {given!r}, expected whole numbers from 0 to 255: '
            'label maps are loaded with eight bits per pixel'
        )
    return int(text)
