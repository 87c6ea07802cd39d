"""All that is looked at between the building of a data set and the first image of a run."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from logging import Logger
from typing import Any

from mmengine.evaluator import DumpResults, Evaluator
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmsw.engine.model_wrapper import unwrapped

from ..images import check_mean
from .class_names import check_class_names
from .datasets import check_dataset
from .heads import check_heads
from .image_files import check_image_files
from .label_maps import forget_classes, look_at_label_maps, look_at_order, tell_classes
from .masks import check_masks


def check_before_run(runner: Runner, loop: BaseLoop, name: str) -> None:
    """Refuse data that do not go with the model or with themselves; warn where it may be meant.

    Args:
        runner: With the model and a logger.
        loop: Of training, validation or testing, with its loader.
        name: Of the loader, for messages.

    Raises:
        DataError: If files or annotations are unfit.
        UsageError: If the config does not fit the data.
    """
    dataset = loop.dataloader.dataset
    evaluator = getattr(loop, 'evaluator', None)
    compares = evaluator is None or _compares(evaluator)
    if not hasattr(dataset, '__len__'):  # it says nothing about itself
        return
    model, metrics = unwrapped(runner.model), evaluator.metrics if evaluator else ()
    for check in data_checks(dataset, model, name, runner.logger, metrics, compares):
        check()
    if compares:
        look_at_label_maps(dataset, name, runner.logger)


def data_checks(
    dataset: Any,
    model: nn.Module,
    name: str,
    logger: Logger,
    metrics: Iterable[Any] = (),
    compares: bool = True,
) -> list[partial]:
    """The checks that read no image and no label map, in the order to call them in.

    Args:
        dataset: A built data set with a length.
        model: What is to be trained or tested.
        name: Of the loader, for messages.
        logger: For warnings.
        metrics: Of the evaluator.
        compares: Whether predictions are compared with truth.

    Returns:
        Functions that raise :class:`mmsw.errors.DataError` or :class:`mmsw.errors.UsageError`.
    """
    checks = [
        partial(check_mean, model),
        partial(check_class_names, dataset, name),
        partial(check_dataset, dataset, name, compares),
        partial(check_heads, model, dataset, name),
    ]
    if not compares:
        return [*checks, partial(forget_classes, dataset)]
    return [
        *checks,
        partial(tell_classes, dataset, model, metrics),
        partial(look_at_order, dataset, name, logger),
        partial(check_masks, dataset, model, name),
        partial(check_image_files, dataset, name, logger),
    ]


def _compares(evaluator: Evaluator) -> bool:
    """Whether predictions are compared with truth, and not only written down."""
    return any(
        not (getattr(metric, 'format_only', False) or isinstance(metric, DumpResults))
        for metric in evaluator.metrics
    )
