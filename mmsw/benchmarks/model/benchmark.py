"""The benchmark of whole networks: every backbone in every form, in one run on one machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmsw.threads import use_threads
from mmsw.wording import short

from ..measure import (
    MachineRates,
    free_memory,
    machine,
    measure,
    peak_memory,
    seconds,
)
from ..onnx_runtimes import missing
from ..page import blocks_to_fill
from ..sizes import chosen_device, chosen_settings
from ..words import say, threads_text
from .contender import Contender, NotStartedError, contenders_of
from .foresight import Foresight
from .kinds import inspected
from .networks import EVAL, MODES, Form, Network, networks
from .page import page_blocks, update_page
from .report import write_report
from .rows import compare, make_row
from .settings import DTYPES, PRESETS, ModelSettings

_CHEAP = 0.5  # seconds: calls below are timed again, with warm caches, for the estimate
_MEMORY_SHARE = 0.8  # of the free memory that a call may take


class _Group(NamedTuple):
    """Rows that are timed in turns with each other."""

    threads: int
    dtype: str
    mode: str
    crop: int
    batch: int

    def __str__(self) -> str:
        return (
            f'{self.mode}, crop {self.crop}, batch {self.batch}, {self.dtype}, '
            f'{threads_text(self.threads)}'
        )


def benchmark_model(
    out: str | os.PathLike[str],
    device: str = 'cpu',
    preset: str = 'default',
    *,
    crops: Sequence[int] | None = None,
    batches: Sequence[int] | None = None,
    threads: Sequence[int] | None = None,
    modes: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    only: Sequence[str] | None = None,
    limit: float | None = None,
    channels_last: bool = False,
    tf32: bool = False,
    contestants: Sequence[Network] | None = None,
    pages: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, object]:
    """Measure backbones in all their forms, and write the table, the figures and a plot.

    A form must give the maps of the training form before it is timed; one that does not is listed
    as an error and gets no row. All contenders of a size take turns. Progress goes to standard
    error.

    Args:
        out: Folder for ``benchmark.md``, ``benchmark.json`` and ``benchmark.png``.
        device: ``'cpu'`` or ``'cuda'``.
        preset: ``'quick'`` or ``'default'``.
        crops: Instead of the preset's, in pixels.
        batches: Instead of the preset's.
        threads: Instead of the preset's.
        modes: Instead of the preset's.
        dtypes: Instead of the preset's, by name.
        only: Parts of the names of the contenders to measure, instead of all.
        limit: Instead of the preset's, in seconds of a call.
        channels_last: Store maps and weights with the channels last.
        tf32: Let a GPU round float32 products to TF32.
        contestants: Networks to measure instead of those of :func:`.networks.networks`.
        pages: Markdown pages that get tables, see :func:`.page.update_page`.

    Returns:
        What ``benchmark.json`` holds.

    Raises:
        UsageError: If a page has no place for tables.
        ValueError: If an argument cannot be honoured, or no contender has such a name.
        OSError: If the folder cannot be written.
    """
    target = chosen_device(device, threads)
    pages = [Path(page) for page in pages]
    for page in pages:
        blocks_to_fill(page, page_blocks(device))
    if tf32 and target.type != 'cuda':
        raise ValueError('tf32 has no effect on cpu; leave it out')
    settings = chosen_settings(
        PRESETS, preset, crops=crops, batches=batches, threads=threads, modes=modes, dtypes=dtypes,
        only=only, limit=limit,
    )  # fmt: skip
    os.makedirs(out, exist_ok=True)  # an unusable folder is found out before the work
    run = _Run(settings, target, channels_last)
    with _gpu_settings(target, tf32) as backends:
        result = run.measure_everything(networks() if contestants is None else contestants)
    result['machine'].update(backends)
    write_report(result, out)
    for page in pages:
        update_page(result, page)
    return result


class _Run:
    """One run: its contenders, its rows, and who is not in it."""

    def __init__(self, settings: ModelSettings, device: torch.device, channels_last: bool) -> None:
        self.settings, self.device = settings, device
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.rows: list[dict[str, object]] = []
        self.left_out: list[str] = []
        self.errors: list[str] = []
        self.names: list[str] = []
        self._foresight: dict[tuple, Foresight] = {}

    def measure_everything(self, contestants: Sequence[Network]) -> dict[str, object]:
        begin = time.perf_counter()
        about = machine(self.device)  # the load before this run adds to it
        contenders = self._build(contestants)
        plan = self._plan()
        rates = MachineRates(self.device)
        for index, group in enumerate(plan):
            say(f'[{index + 1}/{len(plan)}] {group}')
            with use_threads(group.threads):
                self._measure(group, contenders, rates)
        compare(self.rows)
        settings = asdict(self.settings) | dict(
            threads=sorted({group.threads for group in plan}),
            channels_last=self.layout == torch.channels_last,
        )
        return dict(
            machine=about,
            settings=settings,
            left_out=self.left_out,
            errors=self.errors,
            seconds=round(time.perf_counter() - begin, 1),
            rows=self.rows,
        )

    def _plan(self) -> list[_Group]:
        """The groups; small images first, since they show what the larger ones will take."""
        settings = self.settings
        sizes = [(crop, batch) for crop in settings.crops for batch in settings.batches]
        sizes.sort(key=lambda size: size[0] ** 2 * size[1])
        return [
            _Group(threads, dtype, mode, *size)
            for threads in settings.threads or (torch.get_num_threads(),)
            for dtype in settings.dtypes
            for mode in MODES
            for size in sizes
            if mode in settings.modes and (mode == EVAL or dtype == 'float32')
        ]

    def _build(self, contestants: Sequence[Network]) -> list[Contender]:
        found: list[Contender] = []
        for network in contestants:
            forms = self._forms(network)
            if not forms:
                continue
            say(f'building {network.name}')
            try:
                for one in contenders_of(network, forms, self.settings.crops):
                    if isinstance(one, Contender):
                        found.append(one)
                    else:
                        self._fail(str(one))
            except ImportError as error:
                self.left_out.append(f'{network.name}: {error}')
            except Exception as error:  # a network that fails must not cost the others' rows
                self._fail(f'{network.name}: {short(error)}')
        if not found and not self.errors and not self.left_out:
            raise self.settings.nobody(self.names)
        return found

    def _forms(self, network: Network) -> list[Form]:
        """Those of a network that are in the run."""
        settings, found = self.settings, []
        for form in network.forms:
            modes = set(form.modes) & set(settings.modes)
            if not modes:
                continue
            name = network.name + form.name
            self.names.append(name)
            if (
                settings.main
                and not settings.only
                and not (form.main and modes & set(network.main))
            ):
                continue
            if not settings.takes(name):
                continue
            if why := missing(form.packages):
                line = f'{form.name.rpartition(", ")[2]}: {why}'
                if line not in self.left_out:
                    self.left_out.append(line)
                continue
            found.append(form)
        return found

    def _takes_part(self, contender: Contender, mode: str) -> bool:
        quick = self.settings.main and not self.settings.only
        return mode in contender.form.modes and (not quick or mode in contender.network.main)

    def _measure(self, group: _Group, contenders: list[Contender], rates: MachineRates) -> None:
        ready = []
        for contender in contenders:
            if not self._takes_part(contender, group.mode):
                continue
            if prepared := self._prepared(contender, group):
                ready.append((contender, *prepared))
        if not ready:
            return
        settings = self.settings
        in_every_round = settings.budget / settings.rounds
        samples = measure(
            [rates.matmul, *(call for _, call, *_ in ready)],
            [
                min(in_every_round, seconds(rates.matmul, self.device)),
                *(estimate for _, _, estimate, *_ in ready),
            ],
            self.device,
            settings.rounds,
            settings.budget,
            settings.least,
        )
        rate = MachineRates.multiply_adds_per_second(samples[0])
        for (contender, _, _, peak, kinds), times in zip(ready, samples[1:], strict=True):
            row = make_row(contender, group._asdict(), times, rate, peak, kinds)
            self.rows.append(row)
            say(
                f'  {contender.name:<28} {row["median_ms"]:10.1f} ms '
                f'{row["ratio"]:7.2f} x floor  n={len(times)}'
            )
        if any(contender.form.start for contender, *_ in ready):
            torch.compiler.reset()  # its limit on sizes is for all groups together

    def _prepared(self, contender: Contender, group: _Group) -> tuple | None:
        """The call, its rough seconds, its peak of memory and its kinds of work; or who is out."""
        place = f'{contender.name}, {group}'
        try:
            contender.put(self.device, DTYPES[group.dtype], self.layout)
            if (too_much := self._too_much(contender, group)) is not None:
                self.left_out.append(f'{place}: {too_much}')
                return None
            images = self._images(group, group.crop, group.batch)
            call = (
                contender.started(images)
                if contender.form.start
                else contender.call(images, group.mode)
            )
            begin = time.perf_counter()
            result, peak, kinds = inspected(call, self.device)
            estimate = time.perf_counter() - begin
            if result is not None and not all(bool(map_.isfinite().all()) for map_ in result):
                raise ArithmeticError('its maps have numbers that are not finite')
            del result
            if estimate < _CHEAP or self.device.type == 'cuda':
                estimate = min(seconds(call, self.device) for _ in range(2))
            self._foresight_of(contender, group).learn(group.crop, group.batch, estimate, peak)
        except torch.cuda.OutOfMemoryError as error:
            self.left_out.append(f'{place}: {short(error)}')
        except NotStartedError as error:
            self.left_out.append(f'{place}: {error}')
        except Exception as error:  # a contender that fails must not cost the others' rows
            if group.dtype == 'float32':
                self._fail(f'{place}: {short(error)}')
            else:
                self.left_out.append(f'{place}: does not run: {short(error)}')
        else:
            return call, estimate, peak, kinds
        return None

    def _too_much(self, contender: Contender, group: _Group) -> str | None:
        """Why a call is not begun.

        A GPU has no forecast: small calls there take what a launch takes and what cuDNN tries out.
        Who needs too much memory fails soon.
        """
        if self.device.type == 'cuda':
            return None
        time_needed, memory_needed = self._foresight_of(contender, group)(group.crop, group.batch)
        if time_needed > self.settings.limit:
            return (
                f'a call would take about {time_needed:.0f} s, more than the limit of '
                f'{self.settings.limit:g} s'
            )
        free = free_memory(self.device)
        if free is not None and memory_needed > _MEMORY_SHARE * free:
            return f'needs about {memory_needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free'
        return None

    def _foresight_of(self, contender: Contender, group: _Group) -> Foresight:
        return self._foresight.setdefault(
            (contender.name, group.threads, group.dtype, group.mode),
            Foresight(lambda crop: self._probe(contender, group, crop), self.settings.limit),
        )

    def _probe(self, contender: Contender, group: _Group, crop: int) -> tuple[float, int]:
        """Seconds and bytes of a call on one small image; the first call prepares things."""
        call = contender.call(self._images(group, crop, 1), group.mode)
        _, peak = peak_memory(call, self.device)
        return seconds(call, self.device), peak

    def _images(self, group: _Group, crop: int, batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, crop, crop, generator=generator)
        return images.to(self.device, DTYPES[group.dtype], memory_format=self.layout)

    def _fail(self, problem: str) -> None:
        self.errors.append(problem)
        say(f'  error: {problem}')


@contextmanager
def _gpu_settings(device: torch.device, tf32: bool) -> Iterator[dict[str, object]]:
    """Set what torch lets its libraries do on a GPU; gives it in words, and puts it back.

    cuDNN looks for its fastest algorithm. TF32 is on for all products or for none.
    """
    if device.type != 'cuda':
        yield {}
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, tf32, tf32
    try:
        yield {
            'torch.backends.cudnn.benchmark': True,
            'torch.backends.cudnn.allow_tf32': tf32,
            'torch.backends.cuda.matmul.allow_tf32': tf32,
        }
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
