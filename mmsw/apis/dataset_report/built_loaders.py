"""The data sets of a config as a run builds them, and what the checks before a run say of them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from mmsw.component_name import component_name
from mmsw.errors import MmswError, UsageError
from mmsw.wording import short

from ..checks.before_run import data_checks
from ..checks.built_datasets import label_loaders, leaves
from ..checks.datasets import explained_errors
from ..checks.masks import check_masks
from ..checks.options import misspelt_option
from ..data import LOADERS
from ..model_building import build_model
from ..valid_loaders import with_valid_loaders
from .finding import ERROR, WARNING, Finding

CHECK = 'check before a run'


@dataclass
class BuiltLoader:
    """A data loader of the config.

    Attributes:
        name: Its key.
        dataset: The built data set; ``None`` if it cannot be built, or cannot be looked into.
        same_as: Name of a loader before it with the same data.
    """

    name: str
    dataset: Any = None
    same_as: str | None = None


def build_loaders(
    cfg: Config, findings: list[Finding], options: Collection[str] = ()
) -> Iterator[BuiltLoader]:
    """Build the data sets of a config, and let the checks before a run look at them.

    The scope of the config must be set.

    Args:
        cfg: The config.
        findings: What is wrong is added here.
        options: Keys of the config that were changed by hand.

    Yields:
        Every data loader of the config.

    Raises:
        UsageError: If a data set does not know one of the options.
    """
    model = _model(cfg, findings)
    done: dict[str, Any] = {}
    for name in LOADERS:
        loader = cfg.get(name)
        if not (isinstance(loader, dict) and loader.get('dataset')):
            continue
        same = next((key for key, other in done.items() if other == loader.dataset), None)
        done[name] = loader.dataset
        if same:
            yield BuiltLoader(name, same_as=same)
            continue
        yield BuiltLoader(name, _checked(cfg, name, model, findings, options))


def _model(cfg: Config, findings: list[Finding]) -> nn.Module:
    """The model whose heads are compared with the data; an empty one if there is none."""
    if not cfg.get('model'):
        return nn.Identity()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of what toolboxes call old
            return build_model(cfg)
    except Exception as error:  # a model is not what this is about
        text = str(error) if isinstance(error, MmswError) else short(error)
        findings.append(
            Finding(WARNING, 'model', 'heads', f'heads are not compared with the data: {text}')
        )
        return nn.Identity()


def _checked(
    cfg: Config, name: str, model: nn.Module, findings: list[Finding], options: Collection[str]
) -> Any:
    loader, metrics = with_valid_loaders(cfg[name], cfg), _metrics(cfg, name)
    try:
        with explained_errors(loader, name, metrics), contextlib.redirect_stdout(io.StringIO()):
            dataset = loader['dataset']
            if isinstance(dataset, dict):
                dataset = DATASETS.build(dataset)  # pycocotools prints
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
    except MmswError as error:
        findings.append(Finding(ERROR, name, CHECK, str(error)))
        return None
    except Exception as error:  # data sets of others fail in their own ways
        misspelt = misspelt_option(error, options)
        if misspelt:
            raise UsageError(misspelt) from error
        findings.append(Finding(ERROR, name, CHECK, f'cannot be built: {short(error)}'))
        return None
    if not hasattr(dataset, '__len__'):
        findings.append(
            Finding(WARNING, name, CHECK, 'has a data set without length, which is not looked into')
        )
        return None
    logger = logging.Logger(name)
    logger.addHandler(_Adding(findings, name))
    compares = not metrics or not all(item.get('format_only') for item in metrics)
    described = [SimpleNamespace(**{key: item[key] for key in item}) for item in metrics]
    for check in data_checks(dataset, model, name, logger, described, compares):
        try:
            check()
        except MmswError as error:
            findings.append(Finding(ERROR, name, CHECK, str(error)))
            if check.func is check_masks:  # it is told; what else there is can be read
                _without_masks(dataset)
    return dataset


def _without_masks(dataset: Any) -> None:
    for leaf in leaves(dataset):
        for item in label_loaders(leaf):
            item.loader.with_mask = False


def _metrics(cfg: Config, name: str) -> list[dict]:
    found = cfg.get(name.replace('_dataloader', '_evaluator')) if name != LOADERS[0] else None
    items = found if isinstance(found, (list, tuple)) else [found]
    return [
        item
        for item in items
        if isinstance(item, dict) and component_name(item.get('type')) != 'DumpResults'
    ]


class _Adding(logging.Handler):
    """Adds what a check warns of to a list of findings."""

    def __init__(self, findings: list[Finding], name: str) -> None:
        super().__init__(logging.WARNING)
        self.findings, self.loader = findings, name

    def emit(self, record: logging.LogRecord) -> None:
        self.findings.append(Finding(WARNING, self.loader, CHECK, record.getMessage()))
