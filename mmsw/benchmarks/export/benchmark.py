"""The benchmark of exported files: one model after the other, in all formats and precisions."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmsw.apis import export_model, init_model, load_config, load_exported
from mmsw.apis.image_way import prepare_image
from mmsw.apis.inference import predict_prepared
from mmsw.deploy.export.contents import count_zeros
from mmsw.deploy.export.formats import FORMATS, check_packages
from mmsw.deploy.export.precisions import check_form
from mmsw.errors import MmswError, UsageError
from mmsw.threads import use_threads
from mmsw.wording import short

from ..measure import MachineRates, machine, measure, packages, seconds
from ..page import checked_page
from ..sizes import chosen_settings
from ..words import say
from .page import update_page
from .report import write_report
from .rows import FOLDED, TRAINED, Row, add_times, exported_row, pytorch_row
from .scores import first_image, scores_of
from .settings import DEMO, PRESETS, ExportSettings, Form, Subject

_CPU = torch.device('cpu')
_FILES = 'files'
_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime', 'openvino')


def benchmark_export(
    out: str | os.PathLike[str],
    preset: str = 'default',
    *,
    models: Sequence[Sequence[str]] | None = None,
    threads: int | None = None,
    only: Sequence[str] | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    page: str | os.PathLike[str] | None = None,
) -> dict[str, object]:
    """Export models in all forms, and write what each form changes and costs.

    A form whose results are not those of PyTorch is an error and gets no row. Progress goes to
    standard error.

    Args:
        out: Folder for ``benchmark.md``, ``benchmark.json`` and the exported files.
        preset: ``'quick'`` or ``'default'``.
        models: Config and checkpoint of each model, instead of those of the demonstration.
        threads: Of the CPU; ``None`` for as many as torch has.
        only: Parts of the names of forms to measure, ``'onnx int8'`` for instance.
        calibrate: Folder of images for int8; ``None`` for training images of the configs.
        page: Markdown page that gets the tables, see :func:`.page.update_page`.

    Returns:
        What ``benchmark.json`` holds.

    Raises:
        UsageError: If a model is missing.
        ValueError: If an argument cannot be honoured, or no form has such a name.
        OSError: If the folder cannot be written.
    """
    settings = chosen_settings(
        PRESETS, preset, threads=None if threads is None else (threads,), only=only
    )
    forms = [form for form in settings.forms if settings.takes(str(form))]
    if not forms:
        raise settings.nobody(map(str, settings.forms))
    subjects = [Subject(*map(os.fspath, model)) for model in models or DEMO]
    _check(subjects)
    if page is not None:
        checked_page(Path(page))
    os.makedirs(out, exist_ok=True)  # an unusable folder is found out before the work
    run = _Run(settings, forms, Path(out), calibrate)
    with use_threads(threads):
        result = run.measure_everything(subjects)
    write_report(result, out)
    if page is not None:
        update_page(result, Path(page))
    return result


def _check(subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        for what, path in zip(('config', 'checkpoint'), subject, strict=True):
            if not Path(path).is_file():
                made = '; make demo and make demo-detection make it' if subject in DEMO else ''
                raise UsageError(f'{what} {path} does not exist{made}')


class _Run:
    """One run: its rows, and who is not in it."""

    def __init__(
        self,
        settings: ExportSettings,
        forms: Sequence[Form],
        out: Path,
        calibrate: str | os.PathLike[str] | None,
    ) -> None:
        self.settings, self.forms, self.out, self.calibrate = settings, forms, out, calibrate
        self.rows: list[Row] = []
        self.left_out: list[str] = []
        self.errors: list[str] = []
        self.rates: list[float] = []

    def measure_everything(self, subjects: Sequence[Subject]) -> dict[str, object]:
        begin = time.perf_counter()
        about = machine(_CPU)  # the load before this run adds to it
        for index, subject in enumerate(subjects):
            say(f'[{index + 1}/{len(subjects)}] {subject.name}')
            self._measure(subject)
        return dict(
            machine=about,
            packages=packages(_PACKAGES),
            settings=asdict(self.settings) | dict(threads=torch.get_num_threads()),
            left_out=self.left_out,
            errors=self.errors,
            seconds=round(time.perf_counter() - begin, 1),
            matmul_per_s=self.rates,
            rows=self.rows,
        )

    def _measure(self, subject: Subject) -> None:
        cfg = load_config(subject.config)
        ready: list[tuple[Row, nn.Module]] = []
        for form in (TRAINED, FOLDED):
            model = init_model(cfg, subject.checkpoint, deploy=form == FOLDED)
            ready.append((_pytorch(subject, form, model, cfg), model))
        for form in self.forms:
            found = self._exported(subject, form, cfg)
            if found is not None:
                ready.append(found)
        self._time(ready, first_image(cfg))
        self.rows += [row for row, _ in ready]

    def _exported(self, subject: Subject, form: Form, cfg: Config) -> tuple[Row, nn.Module] | None:
        name = f'{subject.name}, {form}'
        say(f'  {name}')
        kind = FORMATS[form.format]
        try:
            check_form(form.format, form.precision)
            check_packages((*kind.writes, *kind.runs), f'format {form.format}')
        except UsageError as error:
            self.left_out.append(f'{name}: {error}')
            return None
        path = self.out / _FILES / f'{subject.name}_{form.precision}{kind.suffix}'
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                report = export_model(
                    cfg,
                    subject.checkpoint,
                    path,
                    form.format,
                    precision=form.precision,
                    calibrate=self.calibrate if form.precision == 'int8' else None,
                    overwrite=True,
                    threads=torch.get_num_threads(),
                    progress=lambda line: None,
                )
            if not report.passed:
                self._fail(f'{name}: {"; ".join(report.verification.problems)}')
                return None
            model = load_exported(path, torch.get_num_threads())
            return exported_row(subject.name, report, scores_of(model, cfg)), model
        except MmswError as error:
            self._fail(f'{name}: {error}')
        except Exception as error:  # a form that fails must not cost the others' rows
            self._fail(f'{name}: {short(error)}')
        return None

    def _time(self, ready: Sequence[tuple[Row, nn.Module]], image: Path) -> None:
        """Time all forms of a model in turns, each from a prepared image to its result."""
        settings, rates = self.settings, MachineRates(_CPU)
        calls = [_call(model, image) for _, model in ready]
        with torch.no_grad():
            for call in calls:
                call()  # fills what is made at the first run
            samples = measure(
                [rates.matmul, *calls],
                [settings.budget / settings.rounds, *(seconds(call, _CPU) for call in calls)],
                _CPU,
                settings.rounds,
                settings.budget,
                settings.least,
            )
        self.rates.append(MachineRates.multiply_adds_per_second(samples[0]))
        rows = [row for row, _ in ready]
        add_times(rows, samples[1:], torch.get_num_threads())
        size = list(prepare_image(ready[0][1], image).packed['inputs'].shape[1:])
        for row in rows:
            row['size'] = size

    def _fail(self, problem: str) -> None:
        self.errors.append(problem)
        say(f'  error: {problem}')


def _call(model: nn.Module, image: Path) -> Callable[[], object]:
    return partial(predict_prepared, model, [prepare_image(model, image)])


def _pytorch(subject: Subject, form: str, model: nn.Module, cfg: Config) -> Row:
    say(f'  {subject.name}, PyTorch {form}')
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    size = sum(tensor.nbytes for tensor in tensors)
    return pytorch_row(subject.name, form, scores_of(model, cfg), size, *count_zeros(tensors))
