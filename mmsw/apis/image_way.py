"""The way of an image to a model: the test pipeline of its config, for files and for arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from torch import nn

from mmsw.component_name import component_name
from mmsw.engine.image_channels import image_channels
from mmsw.errors import DataError, UsageError
from mmsw.wording import short

from .config import config_name, register_toolbox
from .data import iter_datasets
from .images import Image, ImageKind, check_prepared, image_kind
from .valid_loaders import with_valid_loaders

_SCOPES = ('mmseg', 'mmdet')
Item = TypeVar('Item')


@dataclass(frozen=True)
class ImageWay:
    """How images come to a model: the scope, the transforms of files and arrays, the arrays."""

    scope: str
    file: Compose
    array: Compose
    kind: ImageKind


@dataclass(frozen=True)
class PreparedImage:
    """An image that a model can take.

    Attributes:
        name: For messages.
        packed: What the pipeline gave: ``inputs`` ``[C, H, W]`` and ``data_samples``.
        image: As the loader gave it, before any other step; ``None`` if it was not asked for.
    """

    name: str
    packed: dict[str, Any]
    image: np.ndarray | None = None

    @property
    def size(self) -> tuple:
        """Images go to a model together where these are equal: results are as if it had one."""
        return tuple(self.packed['inputs'].shape), self.packed['data_samples'].metainfo.get(
            'ori_shape'
        )


# Beside the models, not in them: they are copied and pickled without.
_built: WeakKeyDictionary[nn.Module, tuple[str, ImageWay]] = WeakKeyDictionary()


def image_way(model: nn.Module) -> ImageWay:
    """How images come to a model.

    Pipelines are built once per model, and again when what its config says about them changes. A
    model of :func:`mmsw.apis.load_exported` has its own.

    Raises:
        UsageError: If the model was not made by :func:`mmsw.apis.init_model`, or its config does
            not say how images come to it.
    """
    own = getattr(model, 'image_way', None)
    if isinstance(own, ImageWay):
        return own
    cfg = getattr(model, 'cfg', None)
    if not isinstance(cfg, Config):
        raise UsageError(
            f'{type(model).__name__} has no cfg: make the model with mmsw.apis.init_model'
        )
    keys = ('default_scope', 'stock_loaders', 'test_dataloader', 'test_pipeline')
    wanted = repr([cfg.get(key) for key in keys])
    built = _built.get(model)
    if built is None or built[0] != wanted:
        built = _built[model] = (wanted, _build_way(model, cfg))
    return built[1]


def load_image(model: nn.Module, path: str | os.PathLike[str]) -> np.ndarray:
    """An image file as the loader of the model's config gives it.

    Returns:
        ``[H, W]`` or ``[H, W, C]``.

    Raises:
        UsageError, mmsw.datasets.DataError: As :func:`mmsw.apis.inference`.
    """
    way = image_way(model)
    name = way.kind.check(path, 0)
    try:
        return way.file.transforms[0]({'img_path': os.fspath(path)})['img']
    except DataError:
        raise
    except Exception as error:
        raise DataError(f'{name} cannot be loaded ({short(error)})') from error


def prepare_image(
    model: nn.Module, image: Image, place: int = 0, *, keep_image: bool = False
) -> PreparedImage:
    """Take an image the way of the config's test images, up to the model.

    Args:
        model: What :func:`mmsw.apis.init_model` returned.
        image: Path, or array.
        place: Index of the image, for messages and as its ``img_id``.
        keep_image: Keep what the loader gave.

    Raises:
        UsageError, mmsw.datasets.DataError: As :func:`mmsw.apis.inference`.
    """
    way = image_way(model)
    name = way.kind.check(image, place)
    if isinstance(image, np.ndarray):
        pipeline, sample = way.array, {'img': way.kind.prepared(image)}
    else:
        pipeline, sample = way.file, {'img_path': os.fspath(image)}
    sample['img_id'] = place
    loaded = None
    try:
        for number, step in enumerate(pipeline.transforms):
            sample = step(sample)
            if number == 0 and keep_image:
                loaded = sample['img'].copy()  # later steps may write into it
    except DataError:
        raise
    except Exception as error:  # transforms fail in their own ways
        raise DataError(f'{name} cannot be prepared for the model ({short(error)})') from error
    check_prepared(len(sample['inputs']), model, name)
    return PreparedImage(name, sample, loaded)


def in_batches(
    items: Iterable[Item], size: int, alike: Callable[[Item], object]
) -> Iterator[list[Item]]:
    """Items that follow each other and are alike, at most ``size`` of them together.

    Args:
        items: Asked for no further than a batch needs.
        size: At least 1.
        alike: Items go together where this is equal.
    """
    batch: list[Item] = []
    for item in items:
        if batch and alike(item) != alike(batch[0]):
            yield batch
            batch = []
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _build_way(model: nn.Module, cfg: Config) -> ImageWay:
    scope = register_toolbox(cfg)
    if scope not in _SCOPES:
        raise UsageError(
            f'{config_name(cfg)} has default_scope={scope!r}; inference is for '
            f'{" and ".join(_SCOPES)}. A classifier of mmpretrain goes to its '
            'ImageClassificationInferencer'
        )
    steps = [step for step in _test_pipeline(cfg) if not _loads(step, 'Annotations', 'Annotation')]
    if steps and _loads(steps[0], 'ImageFromNDArray'):  # as mmdet's inference_detector leaves it
        steps[0] = {**steps[0], 'type': 'LoadImageFromFile'}
    if not (steps and _loads(steps[0], 'ImageFromFile')):
        raise UsageError(
            f'the test pipeline of {config_name(cfg)} must begin with '
            f'LoadImageFromFile or LoadValidImageFromFile, got {steps[:1]}'
        )
    from_file, from_array = dict(steps[0]), {'type': f'{scope}.LoadImageFromNDArray'}
    from_file.pop('ignore_empty', None)
    if 'to_float32' in from_file:
        from_array['to_float32'] = from_file['to_float32']
    with DefaultScope.overwrite_default_scope(scope):
        file = Compose(with_valid_loaders([from_file, *steps[1:]], cfg))
        array = Compose(with_valid_loaders([from_array, *steps[1:]], cfg))
    return ImageWay(scope, file, array, image_kind(image_channels(model), file.transforms[0]))


def _loads(step: dict, *endings: str) -> bool:
    name = component_name(step.get('type'))
    return name.startswith('Load') and name.endswith(endings)


def _test_pipeline(cfg: Config) -> list[dict]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if dataset:
        pipeline = next(iter_datasets(dataset)).get('pipeline')
        if pipeline:
            return pipeline
    if not cfg.get('test_pipeline'):
        raise UsageError(
            f'{config_name(cfg)} has neither test_dataloader.dataset.pipeline nor '
            'test_pipeline, which say how to prepare an image'
        )
    return cfg.test_pipeline
