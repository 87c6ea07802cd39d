"""Trained models for a few lines of Python: segmentation or detection, images in, results out."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn

from mmsw.checkpoint import check_masks_placed, only_data_is_read, read_checkpoint
from mmsw.checkpoint.trained import check_complete, existing_file, fill, state_dict_of, take_form
from mmsw.deploy import fold_model, take_folded_form
from mmsw.errors import CheckpointError, UsageError
from mmsw.wording import short

from .config import config_name, load_config, register_toolbox
from .data import iter_datasets
from .image_way import PreparedImage, image_way, in_batches, prepare_image
from .images import Image
from .model_building import build_model, refusals_explained


def init_model(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = 'cpu',
    cfg_options: dict[str, Any] | None = None,
    *,
    deploy: bool = False,
) -> nn.Module:
    """Build the model of a config, with trained weights, ready for :func:`inference`.

    The pretrained file that the config names in ``init_cfg`` is neither needed nor read. SyncBN
    becomes BN.

    Args:
        config: Config file, or a config, which is copied. Its ``default_scope`` says which toolbox
            it is for.
        checkpoint: File that a training run saved, or its address; or such a model that was saved
            after ``switch_to_deploy`` or :func:`mmsw.deploy.fold_model`, which stays folded.
            ``None`` leaves random weights and warns.
        device: Where the model goes; ``None`` for ``'cuda:0'`` where there is a GPU, else the CPU.
        cfg_options: Changes to the config, dotted key -> value.
        deploy: Fold the whole model for speed, see :func:`mmsw.deploy.fold_model`. Results stay the
            same up to rounding, and the model cannot be trained.

    Returns:
        The model in evaluation mode, with ``cfg`` and with ``dataset_meta``: ``classes`` and
        ``palette`` from the checkpoint, else from the data set of the config.

    Raises:
        UsageError: If the config is for another toolbox, a file is missing, there is no such
            device, or the backbone cannot be folded.
        mmsw.checkpoint.CheckpointError: If the checkpoint is damaged, or does not fill the model.
    """
    cfg = load_config(config, cfg_options)
    scope = register_toolbox(cfg)
    if not cfg.get('model'):
        raise UsageError(f'{config_name(cfg)} has no model')
    device = _device(device)
    meta: dict = {}
    filename = None if checkpoint is None else existing_file(checkpoint, 'checkpoint')
    with DefaultScope.overwrite_default_scope(scope):
        with only_data_is_read():
            model = revert_sync_batchnorm(build_model(cfg))
        if filename is None:
            warnings.warn('no checkpoint: the weights of the model are random', stacklevel=2)
        else:
            saved = read_checkpoint(filename)
            state = state_dict_of(saved)
            take_form(model, state, filename)
            take_folded_form(model, state)
            check_complete(state, model, filename)
            check_masks_placed(state, model, filename, trains=False)
            fill(model, state, filename)
            meta = _meta_of(saved, filename)
        model.dataset_meta = _dataset_meta(meta, cfg)
    model.cfg = cfg
    if deploy:
        fold_model(model)
    return model.to(device).eval()


def inference(
    model: nn.Module,
    images: Image | list[Image] | tuple[Image, ...],
    *,
    keep_logits: bool = False,
    batch_size: int = 1,
) -> BaseDataElement | list[BaseDataElement]:
    """Segment images, or detect objects in them.

    Images take the way of the config's test images, without annotations. Memory grows by the
    results alone. For more images than one wants results of at a time there is
    :func:`iter_inference`.

    Args:
        model: What :func:`init_model` or :func:`mmsw.apis.load_exported` returned.
        images: Path of an image file, or an array as the config's own loader gives it; or a list or
            tuple of those. Mostly BGR ``[H, W, 3]``, uint8; ``[H, W]`` for a model of one channel,
            ``[H, W, C]`` for one of more, uint16 or float32 where the loader keeps what a file has.
            For three channels, grey ``[H, W]`` is repeated.
        keep_logits: Keep ``seg_logits`` ``[classes, H, W]`` of a segmentation, which takes four
            bytes per class and pixel.
        batch_size: Most images that the model gets at once. Neighbours of one size go together.

    Returns:
        One result for one image, a list for a list; on the CPU, in the size of the original image.
        ``pred_sem_seg.data`` is ``[1, H, W]``, class per pixel; ``pred_instances`` has ``bboxes``
        ``[n, 4]`` (x1, y1, x2, y2 in pixels), ``scores``, ``labels``, and, if the model makes them,
        ``masks`` ``[n, H, W]``. Modes of the model's parts are left as they were.

    Raises:
        UsageError: If the model was not made by ``init_model``, or an image is no path and no such
            array; for a list, before the first is processed.
        mmsw.datasets.DataError: If an image file is missing or damaged; names it.
    """
    if not isinstance(images, (list, tuple)):
        return next(iter_inference(model, [images], keep_logits=keep_logits))
    kind = image_way(model).kind
    for place, image in enumerate(images):
        kind.check(image, place)
    results = iter_inference(model, images, keep_logits=keep_logits, batch_size=batch_size)
    return list(results)


def iter_inference(
    model: nn.Module,
    images: Iterable[Image],
    *,
    keep_logits: bool = False,
    batch_size: int = 1,
) -> Iterator[BaseDataElement]:
    """As :func:`inference`, for any number of images: each result comes when it is asked for.

    No more images are prepared ahead than fill a batch, and one of another size.
    """
    if batch_size < 1:
        raise UsageError(f'batch_size must be 1 or more, got {batch_size}')
    prepared = (prepare_image(model, image, place) for place, image in enumerate(images))
    for batch in in_batches(prepared, batch_size, lambda item: item.size):
        for result in predict_prepared(model, batch, keep_logits=keep_logits):
            yield result.cpu()


def predict_prepared(
    model: nn.Module, batch: Sequence[PreparedImage], *, keep_logits: bool = False
) -> list[BaseDataElement]:
    """Results of a batch, as :func:`inference`, on the device of the model.

    Args:
        model: What :func:`init_model` returned.
        batch: Images of one :attr:`~mmsw.apis.image_way.PreparedImage.size`.
        keep_logits: Keep ``seg_logits`` of a segmentation.
    """
    scope = image_way(model).scope
    with torch.no_grad(), _evaluating(model), DefaultScope.overwrite_default_scope(scope):
        results = model.test_step(
            {key: [item.packed[key] for item in batch] for key in ('inputs', 'data_samples')}
        )
    for result in results:
        if not keep_logits and 'seg_logits' in result:
            del result.seg_logits
    return list(results)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise UsageError(
            f'device {str(device)!r} cannot be used here ({short(error)}); cpu always can'
        ) from error
    return device


def _meta_of(saved: dict, filename: str) -> dict:
    """What a checkpoint says about itself.

    Raises:
        CheckpointError: If it is no dict, or its ``dataset_meta`` is none.
    """
    meta = saved.get('meta') or {}
    name, value = 'meta', meta
    if isinstance(meta, dict):
        name, value = 'dataset_meta', meta.get('dataset_meta') or {}
    if not isinstance(value, dict):
        raise CheckpointError(
            f'{filename} is damaged: its {name} is a {type(value).__name__}, a dict was expected'
        )
    return meta


def _dataset_meta(meta: dict, cfg: Config) -> dict:
    """Classes and palette, of one length; the palette is made up where there is none."""
    found = {key.lower(): value for key, value in (meta.get('dataset_meta') or {}).items()}
    for key in ('classes', 'palette'):  # as mmseg 0.x and mmdet 2.x saved them
        if found.get(key) is None and meta.get(key.upper()) is not None:
            found[key] = meta[key.upper()]
    own = _config_meta(cfg)
    if not found.get('classes'):
        found = {**own, **found, 'classes': own.get('classes')}
    if not found.get('classes'):
        raise UsageError(
            f'neither the checkpoint nor the data set of {config_name(cfg)} tells the '
            'names of the classes: add metainfo=dict(classes=(...)) to test_dataloader.dataset'
        )
    found['classes'] = tuple(found['classes'])
    if not _fits(found.get('palette'), found['classes']):
        found['palette'] = own.get('palette')
        if not _fits(found['palette'], found['classes']):
            found['palette'] = _palette(len(found['classes']))
    found['palette'] = [tuple(colour) for colour in found['palette']]  # as mmdet insists
    return found


def _config_meta(cfg: Config) -> dict:
    for loader in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        dataset = (cfg.get(loader) or {}).get('dataset')
        if dataset:
            dataset = copy.deepcopy(next(iter_datasets(dataset)))
            dataset.update(lazy_init=True, pipeline=[])
            with refusals_explained(cfg, f'data set in {loader}'):
                return dict(DATASETS.build(dataset).metainfo)
    return {}


def _fits(palette: Any, classes: tuple[str, ...]) -> bool:
    return isinstance(palette, (list, tuple)) and len(palette) == len(classes)


def _palette(number: int) -> list[tuple[int, ...]]:
    """RGB colours, each far from the one before."""
    from colorsys import hsv_to_rgb

    colours = (hsv_to_rgb(0.618034 * i % 1, (0.85, 0.6)[i % 2], 0.95) for i in range(number))
    return [tuple(round(255 * part) for part in colour) for colour in colours]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
