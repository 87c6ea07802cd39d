"""What an export will do: settled and checked before a model is built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsw.deploy.export.compiled import check_compiler
from mmsw.deploy.export.formats import FORMATS, check_packages
from mmsw.deploy.export.precisions import check_form
from mmsw.errors import UsageError

from ..checks.folders import check_writable
from ..predict.inputs import find_sources

_LEAST = 32  # of a side: five halvings leave one pixel


@dataclass(frozen=True)
class ExportPlan:
    """What to write, and what to look at.

    Attributes:
        path: The file.
        format: ``'onnx'``, ``'openvino'`` or ``'torch'``.
        size: Height and width of a file for one size; ``None`` for any size.
        precision: Of its weights and arithmetic.
        verify: Whether its results are compared with those of PyTorch before it gets its name.
        verify_images: Image files to compare them on; ``None`` for those of the config.
        calibration_images: Image files that int8 takes the ranges of values from; ``None`` for
            those of the config.
        keep_float: Regular expression for weights that int8 leaves in float32.
        compile: Whether a ``.pt2`` file gets machine code.
        overwrite: Whether a file that is there is replaced.
        threads: That compute; ``None`` for as many as torch has.
    """

    path: Path
    format: str
    size: tuple[int, int] | None
    precision: str
    verify: bool
    verify_images: tuple[str, ...] | None
    calibration_images: tuple[str, ...] | None
    keep_float: str | None
    compile: bool
    overwrite: bool
    threads: int | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are written; the one that names the others is the last."""
        if self.format == 'openvino':
            return self.path.with_suffix('.bin'), self.path
        return (self.path,)


def plan_export(
    path: str | os.PathLike[str],
    format: str = 'onnx',
    *,
    dynamic: bool = True,
    size: Sequence[int] | None = None,
    precision: str = 'float32',
    verify: bool | str | os.PathLike[str] = True,
    calibrate: str | os.PathLike[str] | None = None,
    keep_float: str | None = None,
    compile: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
) -> ExportPlan:
    """Check what is asked for; arguments as of :func:`mmsw.apis.export_model`.

    Raises:
        UsageError: If something makes no sense, a package is missing, or the file cannot be
            written there.
        mmsw.errors.DataError: If there is no folder of images where one is named.
    """
    path = Path(path)
    check_form(format, precision)
    if path.suffix.lower() != FORMATS[format].suffix:
        raise UsageError(
            f'{path} does not fit format {format}, whose files end with {FORMATS[format].suffix}'
        )
    plan = ExportPlan(
        path=path,
        format=format,
        size=_size(size, dynamic),
        precision=precision,
        verify=bool(verify),
        verify_images=None if isinstance(verify, bool) else _images(verify),
        calibration_images=_calibration(calibrate, precision),
        keep_float=_only_int8('keep_float', keep_float, precision),
        compile=compile,
        overwrite=overwrite,
        threads=threads,
    )
    if threads is not None and threads < 1:
        raise UsageError(f'threads must be 1 or more, got {threads}')
    if compile:
        _check_compile(format)
    _check_free(plan)
    packages = (*FORMATS[format].writes, *FORMATS[format].runs)
    check_packages(tuple(dict.fromkeys(packages)), f'format {format}')
    return plan


def _size(size: Sequence[int] | None, dynamic: bool) -> tuple[int, int] | None:
    if size is None:
        if not dynamic:
            raise UsageError('dynamic=False needs the size of the images: size=(height, width)')
        return None
    height, width = size
    if min(height, width) < _LEAST:
        raise UsageError(
            f'size {height} {width} is too small: sides of {_LEAST} pixels or more were expected'
        )
    return height, width


def _images(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    found = [source.path for source in find_sources([folder]) if source.kind == 'image']
    if not found:
        raise UsageError(f'{os.fspath(folder)} has no image in it')
    return tuple(found)


def _calibration(folder: str | os.PathLike[str] | None, precision: str) -> tuple[str, ...] | None:
    folder = _only_int8('calibrate', folder, precision)
    return None if folder is None else _images(folder)


def _only_int8(name: str, value: Any, precision: str) -> Any:
    if value is not None and precision != 'int8':
        raise UsageError(f'{name} is for precision int8, and this is {precision}: leave it out')
    return value


def _check_compile(format: str) -> None:
    if format != 'torch':
        raise UsageError(
            f'compile is for format torch, and this is {format}: name a .pt2 file, or leave it out'
        )
    check_compiler()


def _check_free(plan: ExportPlan) -> None:
    for file in plan.files:
        if file.is_dir():
            raise UsageError(f'{file} is a folder: name a file')
        if os.path.lexists(file) and not plan.overwrite:
            raise UsageError(
                f'{file} is there already: name another file, or replace it with --overwrite '
                '(overwrite=True)'
            )
    check_writable(plan.path.parent, 'folder of the exported file')
