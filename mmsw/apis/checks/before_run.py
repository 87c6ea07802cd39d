"""All that is looked at between the building of a data set and the first image of a run."""

from __future__ import annotations

from mmengine.evaluator import DumpResults, Evaluator
from mmengine.runner import BaseLoop, Runner

from mmsw.engine.model_wrapper import unwrapped

from ..images import check_mean
from .class_names import check_class_names
from .datasets import check_dataset
from .heads import check_heads
from .image_files import check_image_files
from .label_maps import forget_classes, look_at_label_maps, tell_classes
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
    model = unwrapped(runner.model)
    check_mean(model)
    check_class_names(dataset, name)
    check_dataset(dataset, name, compares)
    check_heads(model, dataset, name)
    if not compares:
        forget_classes(dataset)
    else:
        tell_classes(dataset, model, evaluator.metrics if evaluator else ())
        check_masks(dataset, model, name)
        check_image_files(dataset, name, runner.logger)
        look_at_label_maps(dataset, name, runner.logger)


def _compares(evaluator: Evaluator) -> bool:
    """Whether predictions are compared with truth, and not only written down."""
    return any(
        not (getattr(metric, 'format_only', False) or isinstance(metric, DumpResults))
        for metric in evaluator.metrics
    )
