"""Scores of a model, or of an exported file, on the test data of a config."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmsw.apis import inference, register_toolbox

_RESULTS = ('pred_sem_seg', 'pred_instances')
_SCORES = {'mIoU': 'mIoU', 'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'}


def scores_of(model: nn.Module, cfg: Config) -> dict[str, float]:
    """Scores in per cent, by the metrics of the config.

    Args:
        model: A model of :func:`mmsw.apis.init_model`, or what :func:`mmsw.apis.load_exported`
            gives. It gets the files of the images and prepares them in its own way.
        cfg: Config with test data.
    """
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)), _quiet():
        dataset = DATASETS.build(copy.deepcopy(cfg.test_dataloader.dataset))
        evaluator = Evaluator(copy.deepcopy(cfg.test_evaluator))
        evaluator.dataset_meta = dataset.metainfo
        for place in range(len(dataset)):
            sample = dataset[place]['data_samples']
            result = inference(model, sample.img_path)
            for name in _RESULTS:
                if name in result:
                    sample.set_data({name: result.get(name)})
            evaluator.process([sample])
        return _in_per_cent(evaluator.evaluate(len(dataset)))


def first_image(cfg: Config) -> Path:
    """The first image of the test data of a config."""
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)), _quiet():
        dataset = DATASETS.build(copy.deepcopy(cfg.test_dataloader.dataset))
        return Path(dataset.get_data_info(0)['img_path'])


def _in_per_cent(metrics: dict[str, Any]) -> dict[str, float]:
    """The scores that a table has; those of COCO are shares."""
    found = {}
    for key, name in _SCORES.items():
        if key in metrics:
            found[name] = float(metrics[key]) * (100 if key.startswith('coco/') else 1)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Metrics print tables."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
