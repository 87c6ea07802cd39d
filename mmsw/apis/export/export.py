"""Exporting a trained model: folded, written as a program, compared with PyTorch, then named."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmsw.deploy import fold_model
from mmsw.deploy.export import Program, program_of, quantize
from mmsw.deploy.export.compiled import compile_file
from mmsw.deploy.export.contents import contents_of, count_zeros, file_bytes
from mmsw.deploy.export.eager import EagerProgram
from mmsw.deploy.export.image_rule import ImageRule
from mmsw.deploy.export.metadata import ExportMetadata
from mmsw.deploy.export.runtimes import open_program
from mmsw.deploy.export.writers import write_program
from mmsw.errors import UsageError
from mmsw.sparsity import report as sparsity_report
from mmsw.whole_file import put_files

from ..config import config_name, load_config
from ..inference import init_model
from ..window_settings import overlap_threshold
from .exported_model import ExportedModel
from .image_rule import for_one_size, image_rule_of
from .int8 import Calibration, calibration_of
from .plan import ExportPlan, plan_export
from .report import ExportReport, Weights
from .sample_images import SampleImages, prepared, sample_images
from .timing import time_beside
from .verify import verify

_MOST_IMAGES = {True: 32, False: 4}  # to compare on: of a folder that is named, of the config
_EXAMPLE = (96, 128)  # height and width of the image that a program for any size is traced with
_LOADERS = ('test_dataloader', 'val_dataloader')


def export_model(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    format: str = 'onnx',
    dynamic: bool = True,
    size: Sequence[int] | None = None,
    precision: str = 'float32',
    verify: bool | str | os.PathLike[str] = True,
    *,
    calibrate: str | os.PathLike[str] | None = None,
    keep_float: str | None = None,
    compile: bool = False,
    cfg_options: dict[str, Any] | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Callable[[str], None] = print,
) -> ExportReport:
    """Write a trained segmentor or detector to a file that runs without mmsw's training stack.

    The model is folded first. The file is compared with the model before it gets its name: one
    whose results are others is not left. :func:`load_exported` runs it.

    Args:
        config: Config file, or a config.
        checkpoint: File that a training run saved.
        path: File to write: ``.onnx``, ``.xml`` for ``'openvino'``, which puts a ``.bin`` beside
            it, or ``.pt2`` for ``'torch'``.
        format: ``'onnx'``, ``'openvino'`` or ``'torch'`` (``torch.export``).
        dynamic: Take images of any size; ``size`` overrules it.
        size: ``(height, width)`` of a file for one size. Images are shrunk into it with their
            shape, and what is free gets a border. A segmentor that slides a window takes that of
            its window.
        precision: ``'float32'``, ``'float16'``, ``'bfloat16'`` or ``'int8'``.
        verify: Whether to compare, or a folder of images to compare on. ``True`` takes test images
            of the config, and random ones where those are not on this machine.
        calibrate: Folder of images that int8 takes the ranges of values from; ``None`` for training
            images of the config.
        keep_float: Regular expression for names of weights that int8 leaves in float32, beside
            those that it leaves anyway, see :func:`mmsw.deploy.export.quantize`.
        compile: Compile a ``.pt2`` file to machine code (AOTInductor). It runs on processors that
            can do what this one can.
        cfg_options: Changes to the config, dotted key -> value.
        overwrite: Replace a file that is there.
        threads: That compute in the comparison; ``None`` for as many as torch has.
        progress: Called with one line each time.

    Returns:
        What was written and how it compares; its text is for a terminal. Where ``passed`` is
        false, there is no file.

    Raises:
        UsageError: If something asked for makes no sense, a package is missing, or the model or
            its test pipeline has no form that a file can hold; names it.
        mmsw.checkpoint.CheckpointError: If the checkpoint is damaged, or of another config.
        mmsw.errors.DataError: If an image cannot be read.
    """
    plan = plan_export(
        path,
        format,
        dynamic=dynamic,
        size=size,
        precision=precision,
        verify=verify,
        calibrate=calibrate,
        keep_float=keep_float,
        compile=compile,
        overwrite=overwrite,
        threads=threads,
    )
    cfg = load_config(config, cfg_options)
    source = _load(cfg, checkpoint, plan, progress)
    plan.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{plan.path.name}.', dir=plan.path.parent) as folder:
        file = Path(folder, plan.path.name)
        graph = _write(source, file, plan, progress)
        report = _examine(source, file, graph, plan, progress)
        if report.passed:
            put_files(Path(folder), plan.files)
    return report


@dataclass(frozen=True)
class _Source:
    """What is exported.

    Attributes:
        model: As it was trained.
        folded: The same, folded.
        program: Of the folded one.
        eager: The program with the metadata of the file, run by torch.
        samples: Images to compare on; ``None`` where that was not asked for.
        calibration: Of int8; ``None`` of other precisions.
    """

    model: nn.Module
    folded: nn.Module
    program: Program
    eager: ExportedModel
    samples: SampleImages | None
    calibration: Calibration | None

    @property
    def metadata(self) -> ExportMetadata:
        """Of the file."""
        return self.eager.metadata


def _load(
    cfg: Config,
    checkpoint: str | os.PathLike[str],
    plan: ExportPlan,
    progress: Callable[[str], None],
) -> _Source:
    """Build and read all that is needed, and refuse what cannot be exported."""
    progress(f'loading {os.fspath(checkpoint)}')
    model = init_model(cfg, checkpoint)
    rule = image_rule_of(model)
    folded = copy.deepcopy(model)
    fold_model(folded)
    program = program_of(folded).eval()
    settings = _settings(program, model)
    metadata = ExportMetadata(
        task=program.task,
        classes=model.dataset_meta['classes'],
        palette=tuple(model.dataset_meta['palette']),
        image=rule if plan.size is None else _for_one_size(rule, plan.size, program),
        settings=settings,
        outputs=program.outputs,
        batched=program.batched and plan.size is None,
        size=plan.size,
        smallest=program.smallest if plan.size is None else 1,
        precision=plan.precision,
        config=Path(config_name(cfg)).name,
        model=program.description,
        density=_density(model),
    )
    samples = None
    if plan.verify:
        most = _MOST_IMAGES[plan.verify_images is not None]
        samples = sample_images(plan.verify_images, cfg, _LOADERS, most, model)
    eager = ExportedModel(EagerProgram(program, metadata))
    if samples is not None:
        _check_samples(samples, eager)
    calibration = calibration_of(plan, cfg, eager)
    return _Source(model, folded, program, eager, samples, calibration)


def _check_samples(samples: SampleImages, eager: ExportedModel) -> None:
    """Say what cannot be read or compared before anything is written."""
    least = eager.metadata.smallest
    for item in prepared(eager, samples.images):
        height, width = item.packed['inputs'].shape[1:]
        if min(height, width) < least:
            raise UsageError(
                f'{item.name} comes to the model with {height} x {width} pixels, and a file for '
                f'any size takes {least} x {least} or more: resize images to more in '
                f'test_pipeline, or give --size {height} {width}'
            )


def _settings(program: Program, model: nn.Module) -> dict[str, Any]:
    if program.task == 'detection':
        return {**program.settings, 'iou_threshold': overlap_threshold(model)}
    return {**program.settings, 'align_corners': bool(model.align_corners)}


def _for_one_size(rule: ImageRule, size: tuple[int, int], program: Program) -> ImageRule:
    crop = program.settings.get('crop_size')
    if crop is not None and size != tuple(crop):
        raise UsageError(
            f'size {size[0]} {size[1]} does not fit the segmentor, which slides a window of '
            f'{crop[0]} x {crop[1]} pixels: give --size {crop[0]} {crop[1]}, or leave it out'
        )
    return for_one_size(rule, size, crops=crop is not None)


def _write(source: _Source, file: Path, plan: ExportPlan, progress: Callable[[str], None]) -> Path:
    """Write the file; returns the one to look into, which differs for machine code."""
    size = 'any size' if plan.size is None else f'{plan.size[0]} x {plan.size[1]} pixels'
    progress(f'writing {plan.path.name}: {plan.format} in {plan.precision} for images of {size}')
    is_int8, written = plan.precision == 'int8', file
    if is_int8:
        written = file.with_name(f'float32_{file.stem}.onnx')
    elif plan.compile:
        written = file.with_name(f'graph_{file.name}')
    example = _example(source, plan)
    write_program(
        source.program,
        written,
        format='onnx' if is_int8 else plan.format,
        example=example,
        dynamic=plan.size is None,
        precision='float32' if is_int8 else plan.precision,
        metadata=source.metadata,
    )
    if is_int8:
        progress(f'calibrating on {source.calibration.source}')
        quantize(written, file, source.calibration.inputs, keep_float=plan.keep_float)
    elif plan.compile:
        progress('compiling, which takes minutes')
        compile_file(written, file, example)
        return written
    return file


def _example(source: _Source, plan: ExportPlan) -> Tensor:
    size = plan.size
    if size is None:
        height = max(_EXAMPLE[0], source.program.smallest)
        size = height, height + _EXAMPLE[1] - _EXAMPLE[0]  # two sides that are not taken for one
    number = 2 if source.metadata.batched else 1
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, source.metadata.image.channels, *size, generator=generator)


def _examine(
    source: _Source, file: Path, graph: Path, plan: ExportPlan, progress: Callable[[str], None]
) -> ExportReport:
    """Open what was written, and compare it."""
    opened = open_program(file, plan.threads)
    opened.path = os.fspath(plan.path)  # for messages: the file has another name so far
    exported = ExportedModel(opened)
    verification = timing = None
    if source.samples is not None:
        progress(f'comparing with PyTorch on {source.samples.source}')
        verification = verify(exported, source.eager, source.model, source.samples)
        progress('timing beside PyTorch')
        timing = time_beside(exported, source.folded, source.samples.images[0], plan.threads)
    trained, folded = _floats(source.model), _floats(source.folded)
    return ExportReport(
        path=plan.path,
        format=plan.format,
        metadata=source.metadata,
        contents=replace(contents_of(graph), bytes=file_bytes(file)),
        compiled=plan.compile,
        parameters=sum(tensor.numel() for tensor in folded),
        checkpoint_weights=Weights(*count_zeros(trained)),
        folded_weights=Weights(*count_zeros(folded)),
        verification=verification,
        timing=timing,
    )


def _floats(model: nn.Module) -> list[Tensor]:
    """What a file of a model holds beside indices and masks."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


def _density(model: nn.Module) -> float | None:
    found = sparsity_report(model).total
    return found.weight_density if found.weights_total else None
