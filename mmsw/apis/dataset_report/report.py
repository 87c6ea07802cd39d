"""The report about the data of a config: figures, findings, and the files that hold them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmsw.errors import UsageError
from mmsw.json_file import read_json, write_json
from mmsw.whole_file import write_text

from ..checks.folders import check_writable
from ..config import config_name, load_config, register_toolbox
from ..data import LOADERS, check_data
from .as_json import as_json
from .built_loaders import CHECK, build_loaders
from .contact_sheet import write_contact_sheet
from .finding import ERROR, WARNING, Finding
from .findings import absent_classes, duplicates, findings_of
from .label_findings import IGNORED_PIXELS, ONE_CLASS
from .survey import Extent, Survey, read_opaque, survey
from .text import as_text

SHEET, JSON, TEXT = 'contact_sheet.png', 'dataset_report.json', 'dataset_report.txt'
_KIND = 'dataset_report'


@dataclass
class DatasetReport:
    """What was found in the data of a config.

    Attributes:
        config: Its name.
        surveys: Of the data loaders, in the order training, validation, test.
        same: Loader -> the one before it that has the same data.
        findings: Errors first.
        extent: How much was looked at.
    """

    config: str
    extent: Extent
    surveys: list[Survey] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether there is an error."""
        return any(item.level == ERROR for item in self.findings)

    def text(self) -> str:
        """The report for people."""
        statistics = [item.statistics for item in self.surveys]
        return as_text(self.config, statistics, self.same, self.findings)

    def json(self) -> dict[str, Any]:
        """The report for programs."""
        statistics = [item.statistics for item in self.surveys]
        return as_json(self.config, self.extent, statistics, self.same, self.findings)


def report_dataset(
    config: str | os.PathLike[str] | Config,
    extent: Extent | None = None,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | os.PathLike[str] | None = None,
    progress: Callable[[str, str, int, int], None] | None = None,
) -> DatasetReport:
    """Look through the data of a config as a run would read them.

    Args:
        config: Config file, or a config.
        extent: How much to look at.
        cfg_options: Changes to the config, dotted key -> value.
        data_root: Folder of the data set, for all loaders.
        progress: Called with the loader, what is done, how many are, and of how many.

    Returns:
        The report.

    Raises:
        UsageError: If the config cannot be used, or its files or folders are missing.
    """
    extent = extent or Extent()
    cfg = load_config(config, cfg_options, data_root)
    scope = register_toolbox(cfg)
    names = [name for name in LOADERS if (cfg.get(name) or {}).get('dataset')]
    if not names:
        raise UsageError(f'{config_name(cfg)} has no data loader with a data set')
    check_data(cfg, names)
    report = DatasetReport(config_name(cfg), extent)
    with DefaultScope.overwrite_default_scope(scope):
        for loader in build_loaders(cfg, report.findings, cfg_options or ()):
            if loader.same_as:
                report.same[loader.name] = loader.same_as
            elif loader.dataset is not None:
                _survey(loader.name, loader.dataset, report, progress)
    told = {item.loader for item in report.findings if item.kind in (IGNORED_PIXELS, ONE_CLASS)}
    report.findings += absent_classes(report.surveys, told)
    train = [item for item in report.surveys if item.statistics.name == LOADERS[0]]
    for item in report.surveys if train else []:
        if item is not train[0]:
            report.findings += duplicates(train[0], item)
    for name, other in report.same.items():
        if other == LOADERS[0]:
            report.findings.append(_same_as_training(name))
    report.findings.sort(key=lambda item: item.level != ERROR)
    return report


def check_outputs(folder: str | os.PathLike[str]) -> None:
    """Raise now if the files of a report could not be written later.

    Args:
        folder: Where they are to go. Files of an earlier report there are replaced.

    Raises:
        UsageError: If it cannot be written to, or holds files of these names that are no report.
    """
    check_writable(folder, '--out')
    there = [name for name in (SHEET, JSON, TEXT) if os.path.lexists(os.path.join(folder, name))]
    if there and read_json(Path(folder, JSON), _KIND) is None:
        raise UsageError(f'--out {folder}: {there[0]} there is of no earlier report; name another')


def write_report(report: DatasetReport, folder: str | os.PathLike[str]) -> list[str]:
    """Write the files of a report: text, JSON and the contact sheet.

    Args:
        report: The report.
        folder: Where they go; it is made.

    Returns:
        Names of the files. Without an image there is no sheet.

    Raises:
        UsageError: If one cannot be written.
    """
    written = [JSON, TEXT]
    write_json(Path(folder, JSON), _KIND, report.json())
    try:
        write_text(Path(folder, TEXT), report.text() + '\n')
        if write_contact_sheet(report.surveys, Path(folder, SHEET)):
            written.append(SHEET)
    except OSError as error:
        raise UsageError(f'--out {folder}: {error}') from error
    return written


def _survey(name: str, dataset: Any, report: DatasetReport, progress: Callable | None) -> None:
    def tell(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(name, what, done, total)

    found = survey(dataset, name, report.extent, tell)
    if not found.readers and len(dataset):
        problem = read_opaque(dataset, report.extent)
        text = 'says nothing of its files and labels, which are not looked into'
        report.findings.append(
            Finding(ERROR, name, 'broken files', problem)
            if problem
            else Finding(WARNING, name, CHECK, f'{"/".join(found.statistics.kinds)} {text}')
        )
    report.surveys.append(found)
    told = any(
        item.loader == name and item.kind == CHECK and 'does not exist' in item.message
        for item in report.findings
    )
    report.findings += findings_of(found, without_missing=told)


def _same_as_training(name: str) -> Finding:
    return Finding(
        ERROR,
        name,
        'duplicates',
        'has the images of train_dataloader: scores on them say nothing about new images',
    )
