"""Loading transforms that name the file when something is wrong with it.

They stand in for ``LoadImageFromFile`` and ``LoadAnnotations`` in pipelines of mmseg and mmdet::

    pipeline = [
        dict(type='LoadValidImageFromFile'),
        dict(type='LoadValidAnnotations', with_bbox=True, with_mask=True),
    ]
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine import fileio
from mmengine.registry import TRANSFORMS

from mmsw.errors import DataError
from mmsw.registration import register
from mmsw.wording import short

from .coco_annotations import explain_outline
from .label_maps import LabelMapReader
from .orientation import exif_hint

_MAX_RATIO = 1000  # of the sides; resizing to fit a frame would leave the short one without a pixel
_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_JPEG_SCAN, _JPEG_END = 0xDA, b'\xff\xd9'
_JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


@register(TRANSFORMS)
class LoadValidImageFromFile(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` that refuses what is not a whole picture.

    Refused are files that are missing, empty, undecodable or cut off (depending on how it reads a
    JPEG, OpenCV fills the rest with grey and says nothing), whose sides differ by a factor above
    1000, or whose size is not the one that the annotations state. Damage in the middle of a file of
    full length is not noticed.

    Args:
        to_float32: Return float32 instead of uint8.
        color_type: As for ``mmcv.imfrombytes``.
        imdecode_backend: As for ``mmcv.imfrombytes``.
        ignore_empty: Skip what would be refused: mmengine then trains on another image, chosen at
            random. Testing cannot skip.
        allow_truncated: Take a JPEG without its end; what is missing becomes grey.
        backend_args: Where files are, see ``mmengine.fileio``.

    Raises:
        DataError: From ``transform``; names the file.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        imdecode_backend: str = 'cv2',
        ignore_empty: bool = False,
        allow_truncated: bool = False,
        *,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            to_float32, color_type, imdecode_backend, None, ignore_empty, backend_args=backend_args
        )
        self.allow_truncated = allow_truncated

    def transform(self, results: dict) -> dict | None:
        """Load ``img_path`` into ``img`` ``[H, W, C]``; sets ``img_shape`` and ``ori_shape``."""
        try:
            content, image = self._load(os.fspath(results['img_path']))
            _check_size(image, content, results)
        except DataError:
            if self.ignore_empty:
                return None
            raise
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _load(self, path: str) -> tuple[bytes, np.ndarray]:
        try:
            content = bytes(fileio.get(path, backend_args=self.backend_args))
        except FileNotFoundError as error:
            raise DataError(
                f'image file {path} does not exist: put it there, or correct the path'
                + _slashes(path)
            ) from error
        except Exception as error:  # storage backends fail in their own ways
            raise DataError(f'image file {path} cannot be read ({short(error)})') from error
        if not content:
            raise DataError(f'image file {path} is empty (0 bytes): copy or download it again')
        if not is_complete(content):
            if not self.allow_truncated:
                raise DataError(
                    f'image file {path} is cut off: it ends after {len(content)} bytes without the '
                    'end mark of its format. Copy or download it again, or remove it from the data '
                    'set; allow_truncated=True in the image loader takes a JPEG as it is'
                )
            content += _JPEG_END
        try:
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
        except Exception as error:  # as do decoders
            raise DataError(_undecodable(path, content, f' ({short(error)})')) from error
        if image is None or image.size == 0:
            raise DataError(_undecodable(path, content))
        return content, image

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, allow_truncated={self.allow_truncated})'


@register(TRANSFORMS)
class LoadValidAnnotations(BaseTransform):
    """``LoadAnnotations`` of the default scope, mmseg or mmdet, with errors that name the files.

    A label map must be as large as its image. One of a single row or column is kept ``[H, W]``,
    where mmseg's own transform loses a dimension and fails. Label maps of mmseg must hold whole
    numbers from 0 to 255, which mmseg's own transform would bend to them; and nothing but classes
    and what is ignored, where the runner has said what they are.

    Args:
        **kwargs: Arguments of the toolbox's ``LoadAnnotations``.

    Raises:
        DataError: From ``transform``; names the annotation file, or the image they belong to.

    Attributes:
        loader: The toolbox's own transform.
        label_maps: Reads label maps in mmseg; ``None`` in other toolboxes.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.loader = TRANSFORMS.build(dict(type='LoadAnnotations', **kwargs))
        of_mmseg = type(self.loader).__module__.startswith('mmseg.')
        self.label_maps = LabelMapReader(self.loader) if of_mmseg else None

    def transform(self, results: dict) -> dict:
        """Load annotations; see the toolbox for the keys. Needs ``ori_shape`` of the image."""
        if self.label_maps is not None:
            results['gt_seg_map'] = self.classes_of(results)
            results['seg_fields'].append('gt_seg_map')
            return results
        what = self._described(results)
        if getattr(self.loader, 'with_mask', False):
            _check_outlines(results, what)
        with _explained(what):
            loaded = self.loader.transform(results)
        if loaded.get('gt_seg_map') is not None:
            loaded['gt_seg_map'] = self._fitting(loaded['gt_seg_map'], results, what)
        return loaded

    def classes_of(self, info: dict) -> np.ndarray:
        """Class of each pixel of a label map of mmseg.

        Args:
            info: Of the data set; with ``ori_shape`` if the image has been loaded.

        Returns:
            uint8 of ``[H, W]``.

        Raises:
            DataError: As from ``transform``.
        """
        what = self._described(info)
        if info.get('seg_map_path') is None:
            raise DataError(
                f'image {info.get("img_path")} has no label map in its data set: name the folder '
                'of label maps, seg_map_path in data_prefix, or predict without truth, with '
                '--no-truth of tools/test.py'
            )
        with _explained(what):
            values = self.label_maps.values(info, what)
            if 'ori_shape' in info:
                values = self._fitting(values, info, what)
            return self.label_maps.classes(values, info, what)

    def _described(self, results: dict) -> str:
        image = results.get('img_path')
        labels = results.get('seg_map_path') if self.loader.with_seg else None
        if labels is not None:
            return f'label map {labels} of image {image}'
        return f'annotations of image {image}'

    def _fitting(self, labels: np.ndarray, results: dict, what: str) -> np.ndarray:
        shape = tuple(results['ori_shape'])
        if labels.ndim < 2 and 1 in shape and labels.size == shape[0] * shape[1]:
            return labels.reshape(shape)
        if labels.shape == shape:
            return labels
        if labels.ndim != 2:
            raise DataError(
                f'{what} has shape {labels.shape}, expected one class index per pixel '
                f'{shape}: save it as a picture of one channel'
            )
        cure = 'expected are equal sizes: replace one of them'
        with suppress(Exception):  # of the storage: then the image tells nothing
            content = fileio.get(results['img_path'], backend_args=self.loader.backend_args)
            cure = exif_hint(content, shape, labels.shape) or cure
        raise DataError(
            f'{what} is {labels.shape[1]} pixels wide and {labels.shape[0]} high, the image '
            f'{shape[1]} and {shape[0]}; {cure}'
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.loader!r})'


def is_complete(content: bytes) -> bool:
    """Whether JPEG or PNG content has its end mark; True for other formats.

    A thumbnail in the header of a JPEG has an end mark too; it does not count.
    """
    if content.startswith(_PNG):
        return content.rfind(b'IEND') >= 0
    if not content.startswith(_JPEG):
        return True
    place = 2
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return True  # no proper JPEG: for the decoder to judge
        marker = content[place + 1]
        if marker == _JPEG_SCAN:
            return content.rfind(_JPEG_END, place) >= 0
        if marker == 0xFF:
            place += 1
        elif marker in _JPEG_ALONE:
            place += 2
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    return False


def _slashes(path: str) -> str:
    if '\\' not in path or os.sep == '\\':
        return ''
    return (
        '. Its name has backslashes, which an annotation file from Windows may have: '
        '`python tools/convert_dataset.py coco` writes it with slashes'
    )


def _undecodable(path: str, content: bytes, why: str = '') -> str:
    return (
        f'image file {path} ({len(content)} bytes, starting with {content[:8]!r}) is no picture '
        f'that can be decoded{why}: copy or download it again, or remove it from the data set'
    )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f'{what} does not exist: put it there, or correct the paths (data_root, data_prefix, '
            'seg_map_suffix)'
        ) from error
    except Exception as error:  # whatever is wrong here is wrong with the data
        raise DataError(f'{what} cannot be loaded ({short(error)})') from error


def _check_outlines(results: dict, what: str) -> None:
    """Refuse outlines that mmdet fails on, or takes for something else."""
    shape = tuple(results['ori_shape']) if 'ori_shape' in results else None
    for index, item in enumerate(results.get('instances') or ()):
        problem = 'no mask: its segmentation is missing or empty'
        if 'mask' in item:
            if not isinstance(item['mask'], (list, dict)):
                continue  # of another data set, which its loader knows
            problem = explain_outline(item['mask'], shape)
        if problem:
            raise DataError(f'{what} cannot be loaded: object {index} has {problem}')


def _check_size(image: np.ndarray, content: bytes, results: dict) -> None:
    path = results['img_path']
    height, width = image.shape[:2]
    if max(height, width) > _MAX_RATIO * min(height, width):
        raise DataError(
            f'image file {path} is {width} pixels wide and {height} high; expected are sides that '
            f'differ at most by a factor of {_MAX_RATIO}. Remove it from the data set'
        )
    stated = results.get('width'), results.get('height')
    if None not in stated and stated != (width, height):
        cure = exif_hint(content, (height, width), stated[::-1])
        cure = cure or 'correct width and height in the annotation file, or replace the image'
        raise DataError(
            f'image file {path} is {width} pixels wide and {height} high, but its annotations say '
            f'{stated[0]} and {stated[1]}: {cure}'
        )
