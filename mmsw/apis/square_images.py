"""Image files as squares of one size, normalised as a config says."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from mmsw.datasets import LoadValidImageFromFile
from mmsw.errors import DataError, UsageError

from .predict.inputs import find_sources

_COLOURS = {1: 'grayscale', 3: 'color'}  # by number of channels


def read_squares(
    inputs: Sequence[str | os.PathLike[str]], size: int, most: int, channels: int = 3
) -> list[np.ndarray]:
    """Read the first images that some inputs stand for, resized to squares.

    The whole image is resized, whatever its shape, as RepLKNet's measurement does.

    Args:
        inputs: Image files, folders or patterns, see
            :func:`~mmsw.apis.predict.inputs.find_sources`.
        size: Side in pixels.
        most: How many to read.
        channels: 3 for BGR, 1 for grey.

    Returns:
        uint8 ``[size, size, channels]`` of each.

    Raises:
        UsageError: If there is no image, or no way to read that many channels.
        DataError: If a file is missing or damaged; names it.
    """
    if channels not in _COLOURS:
        raise UsageError(
            f'a network takes images of {channels} channels; image files are read with 1 or 3. '
            'Call mmsw.analysis.effective_receptive_field with tensors'
        )
    files = [source.path for source in find_sources(inputs) if source.kind == 'image'][:most]
    if not files:
        raise UsageError(f'no image among {", ".join(map(os.fspath, inputs))}')
    load = LoadValidImageFromFile(color_type=_COLOURS[channels])
    squares = []
    for path in files:
        loaded = load.transform({'img_path': path})
        if loaded is None:
            raise DataError(f'image file {path} is empty')
        image = cv2.resize(loaded['img'], (size, size), interpolation=cv2.INTER_CUBIC)
        squares.append(image.reshape(size, size, channels))
    return squares


def normalised(image: np.ndarray, cfg: Config) -> Tensor:
    """An image as the data preprocessor of a config hands it to the network.

    Args:
        image: BGR or grey, uint8 ``[H, W, C]``.
        cfg: The config; where its preprocessor has no mean, values stay within 0..255.

    Returns:
        float32 ``[C, H, W]``.

    Raises:
        UsageError: If the mean or the deviation does not fit the channels.
    """
    settings = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor')
    settings = settings or {}
    swaps = settings.get('bgr_to_rgb') or settings.get('to_rgb')
    # A copy: of one channel, ascontiguousarray keeps the negative stride, which torch refuses.
    tensor = torch.from_numpy((image[..., ::-1] if swaps else image).copy())
    tensor = tensor.permute(2, 0, 1).float()
    mean, deviation = (settings.get(key) for key in ('mean', 'std'))
    if mean is None or deviation is None:
        return tensor
    return (tensor - _column(mean, tensor)) / _column(deviation, tensor)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise UsageError(
            f'mean and std of data_preprocessor must be lists of a number per channel, got {values}'
        )
    if len(values) not in (1, len(like)):
        raise UsageError(
            f'data_preprocessor has mean or std of {len(values)} channels, the network takes '
            f'{len(like)}'
        )
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
