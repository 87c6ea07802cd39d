"""Filling in a config from its ``own_data``."""

from __future__ import annotations

from mmengine.config import Config

from .detection import fill_detection
from .files import check_paths
from .heads import set_number_of_classes
from .schedule import fill_schedule
from .segmentation import fill_segmentation
from .settings import read_settings

_FILL = {'segmentation': fill_segmentation, 'detection': fill_detection}


def has_own_data(cfg: Config) -> bool:
    """Whether a config still has an ``own_data``."""
    return 'own_data' in cfg


def fill_in(cfg: Config) -> None:
    """Write into a config all that follows from its ``own_data``, in place.

    Data sets take the place of those that stand for own data, ``None`` becomes what the data ask
    for, and every head gets the number of classes. What the config says itself stays. ``own_data``
    is taken out, so that the config is complete for any program of the toolboxes.

    The data are looked at where ``data_root`` exists: for the number of training images, and for
    the categories of a COCO file.

    Args:
        cfg: A config with an ``own_data`` dict, as of ``configs/own_segmentation_sw_t.py``.

    Raises:
        UsageError: If ``own_data`` has a mistake, or does not fit the files.
        mmsw.errors.DataError: If an annotation file is damaged.
    """
    own = read_settings(cfg.own_data)
    check_paths(own)
    classes, images = _FILL[own.task](cfg, own)
    if cfg.get('model'):
        set_number_of_classes(cfg.model, own.task, classes)
    fill_schedule(cfg, own, images)
    cfg.data_root = own.data_root
    cfg.pop('own_data')
