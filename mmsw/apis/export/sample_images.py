"""Images to compare results on, and to calibrate with: of a folder, of the config, or random."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from torch import nn

from ..data import datasets_of
from ..image_way import PreparedImage, image_way, prepare_image
from ..images import Image
from ..predict.inputs import IMAGE_SUFFIXES

_RANDOM_SIZES = ((96, 144), (160, 112), (131, 177))


@dataclass(frozen=True)
class SampleImages:
    """Some images, and where they are from.

    Attributes:
        images: Paths, or arrays.
        source: In words.
        are_photographs: Whether somebody took them.
    """

    images: tuple[Image, ...]
    source: str
    are_photographs: bool = True


def sample_images(
    files: Sequence[str] | None, cfg: Config, loaders: Sequence[str], most: int, model: nn.Module
) -> SampleImages:
    """Choose images, evenly over those that there are.

    Args:
        files: Image files; ``None`` for those of the config.
        cfg: Config with data loaders.
        loaders: Keys of the loaders to look at, in order.
        most: How many at most.
        model: Whose kind of image random ones are, where there are none on this machine.
    """
    if files is not None:
        return SampleImages(tuple(spread(files, most)), _share(len(files), most, 'given images'))
    for loader in loaders:
        for dataset in datasets_of(cfg, loader):
            found = _files_of(dataset)
            if found:
                what = f'images of {loader} of the config'
                return SampleImages(tuple(spread(found, most)), _share(len(found), most, what))
    return SampleImages(
        random_images(model), 'random images: the config has none on this machine', False
    )


def spread(items: Sequence[str], most: int) -> list[str]:
    """At most so many items, evenly over all."""
    places = np.linspace(0, len(items) - 1, min(most, len(items)))
    return [items[round(place)] for place in places]


def prepared(model: nn.Module, images: Sequence[Image]) -> list[PreparedImage]:
    """Images as a model takes them.

    Raises:
        DataError: If one of them cannot be read.
    """
    return [prepare_image(model, image, place) for place, image in enumerate(images)]


def random_images(model: nn.Module) -> tuple[np.ndarray, ...]:
    """Smooth noise of three sizes, as arrays that a model takes; always the same."""
    kind, generator = image_way(model).kind, np.random.default_rng(0)
    dtype = np.dtype(kind.dtypes[0] if kind.dtypes else 'uint8')
    images = []
    for height, width in _RANDOM_SIZES:
        coarse = generator.uniform(0, 255, (9, 13, kind.channels[0])).astype(np.float32)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        image = image.reshape(height, width, -1) + generator.normal(0, 12, (height, width, 1))
        images.append(image.clip(0, 255).astype(dtype))
    return tuple(images)


def _files_of(dataset: dict) -> list[str]:
    """Image files below the folder that a data set names; empty where it is not here."""
    prefix = dataset.get('data_prefix')
    names = [prefix.get(key) for key in ('img_path', 'img')] if isinstance(prefix, dict) else []
    root = str(dataset.get('data_root') or '')
    for name in filter(None, names):
        folder = Path(os.path.join(root, name))
        if folder.is_dir():
            files = (path for path in folder.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)
            return [str(path) for path in sorted(files)]
    return []


def _share(there: int, most: int, what: str) -> str:
    return f'{min(there, most)} of {there} {what}' if there > most else f'{there} {what}'
