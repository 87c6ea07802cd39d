"""What :func:`mmsw.apis.inference` takes for an image: a path, or an array as a loader gives it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from torch import nn

from mmsw.component_name import component_name, component_package
from mmsw.engine.image_channels import image_channels
from mmsw.errors import DataError, UsageError
from mmsw.models import ShiftWiseNet, SLaK

Image = str | os.PathLike[str] | np.ndarray

_CHANNELS = {'color': 3, 'grayscale': 1}  # by color_type of a loader; others keep what a file has
_KEPT = ('unchanged', 'unchanged_ignore_orientation')
_TOOLBOXES = ('mmengine', 'mmseg', 'mmdet')  # their preprocessors leave the channels as they are
_WHOLE, _DEEP = ('uint8',), ('uint8', 'uint16', 'float32')
_CURES = {1: "color_type='grayscale'", 3: "color_type='color'"}


@dataclass(frozen=True)
class ImageKind:
    """Arrays that a model takes.

    Attributes:
        channels: Numbers of channels; the first is that of the model's own images.
        dtypes: Names of element types; empty where a loader of one's own may give any.
    """

    channels: tuple[int, ...]
    dtypes: tuple[str, ...] = _WHOLE

    def check(self, image: Any, place: int) -> str:
        """Name of an image for messages.

        Args:
            image: What was given for one.
            place: Its index.

        Raises:
            UsageError: If it is no path and no such array.
            DataError: If it is a path, and no local file is there.
        """
        if isinstance(image, (str, os.PathLike)):
            return check_file(image)
        name = f'image {place}'
        if not isinstance(image, np.ndarray):
            raise UsageError(f'{name} is a {type(image).__name__}; expected {self._expected()}')
        found = f'{name} is a {image.dtype} array {list(image.shape)}'
        if image.ndim not in (2, 3) or image.size == 0 or not self._takes(image.dtype):
            raise UsageError(f'{found}; expected {self._expected()}')
        if image.ndim == 2 and not {1, 3} & {*self.channels}:
            number = 1
        elif image.ndim == 3 and image.shape[2] not in self.channels:
            number = image.shape[2]
        else:
            return f'{name} (array {list(image.shape)})'
        raise UsageError(
            f'{found}; expected {self._expected()}: the model takes images of '
            f'{_either(self.channels)} channels, and this one has {number}'
        )

    def prepared(self, image: np.ndarray) -> np.ndarray:
        """A copy of an image as the loader of the config would give it."""
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 2 and 1 not in self.channels:
            image = np.repeat(image[..., None], 3, axis=2)
        return np.array(image, order='C')  # a copy: transforms may write into it

    def _takes(self, dtype: np.dtype) -> bool:
        return dtype.name in self.dtypes if self.dtypes else dtype.kind in 'buif'

    def _expected(self) -> str:
        names = {1: 'grey [H, W]', 3: 'BGR [H, W, 3]'}
        shapes = [names.get(number, f'[H, W, {number}]') for number in self.channels]
        if 3 in self.channels and 1 not in self.channels:
            shapes.append(names[1])
        kinds = _either(self.dtypes) if self.dtypes else 'numeric'
        return f'a path, or a {kinds} array, {_either(shapes)}'


def _either(items: Iterable[object]) -> str:
    return ' or '.join(map(str, items))


def image_kind(own: int, loader: Any) -> ImageKind:
    """Arrays that a model takes, judged by its stem and by the loader of its test images.

    Args:
        own: Channels that the stem of the model takes.
        loader: The transform that loads a file.
    """
    if not isinstance(loader, LoadImageFromFile):
        return ImageKind((own,), ())
    given = _CHANNELS.get(loader.color_type, own)
    if getattr(loader, 'imdecode_backend', None) == 'tifffile':
        return ImageKind((own,), ())
    if loader.color_type in _KEPT:
        return ImageKind((own,), _DEEP)
    dtypes = ('uint8', 'float32') if loader.to_float32 else _WHOLE
    return ImageKind(tuple(dict.fromkeys((own, given))), dtypes)


def check_files(images: Iterable[str | os.PathLike[str]]) -> None:
    """Check that image files are there; they are not read.

    Raises:
        DataError: If one is missing.
    """
    for image in images:
        check_file(image)


def check_file(image: str | os.PathLike[str]) -> str:
    """Name of an image file for messages.

    Raises:
        DataError: If it is a local file, and not there.
    """
    name = os.fspath(image)
    if '://' not in name and not Path(name).is_file():
        what = 'is a folder' if Path(name).is_dir() else 'does not exist'
        raise DataError(f'image file {name} {what} (working folder: {Path.cwd()})')
    return f'image file {name}'


def check_prepared(channels: int, model: nn.Module, name: str) -> None:
    """Refuse an image that has other channels than a model takes.

    Args:
        channels: Of the image that goes into the preprocessor of the model.
        model: The model. One with a preprocessor of one's own takes anything.
        name: Of the image, for the message.

    Raises:
        UsageError: If the numbers differ.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    if component_package(type(preprocessor)) not in _TOOLBOXES:
        return
    check_mean(model)
    own, mean = image_channels(model), getattr(preprocessor, 'mean', None)
    if channels == 1 and mean is not None:  # which is subtracted for each of its channels
        channels = mean.numel()
    if channels != own:
        cure = _CURES.get(own, "color_type='unchanged'")
        raise UsageError(
            f'{name} goes to the model with {channels} channel{"" if channels == 1 else "s"}, and '
            f'the {component_name(type(model.backbone if hasattr(model, "backbone") else model))} '
            f'takes {own}: load images with {cure}, or set in_channels={channels}'
        )


def check_mean(model: nn.Module) -> None:
    """Refuse a mean of other channels than a shift-wise backbone takes.

    Args:
        model: The model. Only those of mmseg and mmdet with their own preprocessors are looked at.

    Raises:
        UsageError: If there is such a mean.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    packages = {component_package(type(part)) for part in (model, preprocessor)}
    mean = getattr(preprocessor, 'mean', None)
    if not packages <= {'mmseg', 'mmdet'} or mean is None:
        return
    own = image_channels(model)
    kind = type(getattr(model, 'backbone', None))
    if kind in (ShiftWiseNet, SLaK) and mean.numel() not in (1, own):
        raise UsageError(
            f'data_preprocessor has a mean of {mean.numel()} channels, and the {kind.__name__} '
            f'takes {own}: give mean and std one value per channel, or set '
            f'in_channels={mean.numel()}'
        )


def displayable(image: np.ndarray) -> np.ndarray:
    """A picture of an image: grey is repeated, of more channels the first three are shown.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``, of any type. What does not lie within 0..255 is scaled
            so that its least value becomes 0 and its greatest 255; so are fractions below 1.

    Returns:
        uint8, ``[H, W, 3]``.
    """
    image = image[..., None] if image.ndim == 2 else image
    image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if image.dtype == np.uint8:
        return image
    values = np.nan_to_num(image.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    if low < 0 or high > 255 or (image.dtype.kind == 'f' and high <= 1):
        values = (values - low) * (255 / max(high - low, np.finfo(np.float32).tiny))
    return values.round().astype(np.uint8)
