"""The operator benchmark: every backend against every other way, in one run on one machine."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmsw.ops import available_backends, shift_wise_conv2d
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
from ..memory import give_back
from ..page import blocks_to_fill
from ..processes import clock
from ..sizes import chosen_device, chosen_settings
from ..words import say
from .cases import Case, OperatorShape, stage_shapes
from .contenders import contenders
from .job import BOTH, FORWARD, Job
from .kept_groups import KeptGroups, conditions
from .page import page_blocks, update_page
from .report import write_report
from .rows import make_row, type_name
from .settings import FEW_SPARSITIES, PRESETS, BenchmarkSettings

_CHEAP = 0.5  # seconds: calls below are run a second time to measure memory with warm caches
_RATE_SAMPLES = 3


class _Group(NamedTuple):
    """Rows that are timed in turns with each other."""

    shape: OperatorShape
    batch: int
    mode: str
    sparsities: tuple[float, ...]  # empty outside the sweep
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        shape = self.shape
        sweep = ', sparsity sweep' if self.sparsities else ''
        if self.dtype != torch.float32:
            sweep += f', {type_name(self.dtype)}'
        return (
            f'{shape}: C={shape.channels} {shape.size}x{shape.size} '
            f'M={shape.big_kernel} N={shape.small_kernel} R={shape.num_reps}, '
            f'batch {self.batch}, {self.mode}{sweep}'
        )


def benchmark_ops(
    out: str | os.PathLike[str],
    device: str = 'cpu',
    preset: str = 'default',
    versions: Sequence[str] | None = None,
    crops: Sequence[int] | None = None,
    batches: Sequence[int] | None = None,
    threads: Sequence[int] | None = None,
    sparsities: Sequence[float] | None = None,
    only: Sequence[str] | None = None,
    seed: int = 0,
    shapes: Sequence[OperatorShape] | None = None,
    pages: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, object]:
    """Measure the operator in all its forms and write the table, the figures and a plot.

    Every contender must produce the numbers of the definition before it is timed; one that does not
    is listed as an error and gets no row. Contenders of one shape take turns. Progress goes to
    standard error. What is finished is kept in ``unfinished.json`` until the report is written, so
    a call that was stopped goes on.

    Args:
        out: Folder for ``benchmark.md``, ``benchmark.json``, ``benchmark.png`` and ``.svg``.
        device: ``'cpu'`` or ``'cuda'``.
        preset: ``'quick'``, ``'default'`` or ``'full'``.
        versions: Instead of the preset's.
        crops: Instead of the preset's, in pixels.
        batches: Instead of the preset's.
        threads: Instead of the preset's.
        sparsities: Instead of the preset's.
        only: Parts of the names of the contenders to measure, instead of all.
        seed: Of the maps and kernels.
        shapes: Layers to measure instead of the networks' stages.
        pages: Markdown pages that get tables, see :func:`.page.update_page`.

    Returns:
        What ``benchmark.json`` holds.

    Raises:
        UsageError: If a page has no place for tables, or ``out`` holds an unfinished run of other
            settings, another machine or other code.
        ValueError: If an argument cannot be honoured, or no contender has such a name.
        OSError: If the folder cannot be written.
    """
    target = chosen_device(device, threads)
    pages = [Path(page) for page in pages]
    for page in pages:
        blocks_to_fill(page, page_blocks(device))
    settings = chosen_settings(
        PRESETS, preset, versions=versions, crops=crops, batches=batches, threads=threads,
        sparsities=sparsities, only=only,
    )  # fmt: skip
    if shapes is None:
        shapes = [
            shape
            for version in settings.versions
            for crop in settings.crops
            for shape in stage_shapes(version, crop)
        ]
    os.makedirs(out, exist_ok=True)  # an unusable folder is found out before the work
    run = _Run(settings, target, list(shapes), seed, Path(out))
    result = run.measure_everything()
    write_report(result, out)
    for page in pages:
        update_page(result, page)
    run.kept.clear()
    return result


class _Run:
    """One run: its groups, its rows and what it has learnt about their cost."""

    def __init__(
        self,
        settings: BenchmarkSettings,
        device: torch.device,
        shapes: list[OperatorShape],
        seed: int,
        out: Path,
    ) -> None:
        self.settings, self.device, self.shapes, self.seed = settings, device, shapes, seed
        self.backends, self.unavailable = usable_backends(device)
        self.machine = machine(device)  # the load before this run adds to it
        known = conditions(settings, shapes, seed, self.backends, self.machine)
        self.kept = KeptGroups(out, known)
        self.rows: list[dict[str, object]] = []
        self.left_out: list[str] = []
        self.errors: list[str] = []
        self.names: dict[str, None] = {}  # of all contenders, in their order
        self._group_seconds: dict[tuple[str, bool], list[tuple[float, float]]] = {}
        self._seconds = 0.0

    def measure_everything(self) -> dict[str, object]:
        for name, reason in self.unavailable.items():
            say(f'backend {name}: not in this run: {reason}')
        self.kept.sittings.append(self.machine['date'])
        if len(self.kept):
            say(f'{len(self.kept)} groups are finished already')
        threads = self.settings.threads or (torch.get_num_threads(),)
        plan = [
            (number, group)
            for number in threads
            for group in self._groups(sweep=number == threads[-1])
        ]
        rates = MachineRates(self.device)
        for index, (number, group) in enumerate(plan):
            name = f'{group}, {number} threads'
            if (found := self.kept.of(name)) is not None:
                self._take(group, found)
                continue
            left = self._remaining([group for _, group in plan[index:]])
            say(f'[{index + 1}/{len(plan)}] {name}{left}')
            begin = time.perf_counter()
            with use_threads(number):
                found = self._measure(group, number, rates)
            found['seconds'] = time.perf_counter() - begin
            if found['rows'] or found['errors']:
                self.kept.keep(name, found)
            self._take(group, found)
            give_back()
        order = {str(shape): index for index, shape in enumerate(self.shapes)}
        self.rows.sort(
            key=lambda row: (
                row['threads'], row['batch'], row['dtype'], row['sweep'], row['mode'],
                order[row['shape']],
            )
        )  # fmt: skip
        if not self.rows and self.settings.only and not self.errors:
            raise self.settings.nobody(self.names)
        return dict(
            machine=self.machine,
            sittings=self.kept.sittings,
            settings=dict(
                versions=self.settings.versions,
                crops=self.settings.crops,
                batches=self.settings.batches,
                threads=threads,
                sparsities=self.settings.sparsities,
                dtypes=[type_name(dtype) for dtype in self.settings.dtypes],
                only=self.settings.only,
                rounds=self.settings.rounds,
                budget_s=self.settings.budget,
                seed=self.seed,
            ),
            backends=self.backends,
            unavailable=self.unavailable,
            left_out=self.left_out,
            errors=self.errors,
            seconds=round(self._seconds, 1),
            rows=self.rows,
        )

    def _groups(self, sweep: bool) -> list[_Group]:
        """Small maps first: they show early what does not work."""
        groups = [
            _Group(shape, batch, mode, (), dtype)
            for batch in self.settings.batches
            for dtype in self.settings.dtypes
            for mode in (FORWARD, BOTH)
            for shape in reversed(self.shapes)
        ]
        last = self.shapes[-1]
        for batch in self.settings.batches if sweep else ():
            shares = self.settings.sparsities
            first = batch == self.settings.batches[0]
            few = {*FEW_SPARSITIES, *([max(shares)] if first and shares else [])}
            some = tuple(share for share in shares if share in few)
            swept = [(1, shares if first else some)]  # with one repetition, and with the network's
            swept += [(None, some)] if first else []
            groups.extend(
                _Group(replace(shape, num_reps=reps or shape.num_reps), batch, mode, chosen)
                for reps, chosen in swept
                for mode in (FORWARD, BOTH)
                for shape in reversed(self.shapes)
                if chosen
                and (shape.version, shape.crop) == (last.version, last.crop)
                and (reps or shape.num_reps > 1)
            )
        return groups

    def _take(self, group: _Group, found: dict[str, Any]) -> None:
        """Add what was measured of a group, now or before the run was stopped."""
        self.rows += found['rows']
        self.errors += found['errors']
        self.left_out += [line for line in found['left_out'] if line not in self.left_out]
        self.names.update(dict.fromkeys(found['names']))
        self._seconds += found['seconds']
        spent = (self._size(group), found['seconds'])
        self._group_seconds.setdefault(self._kind(group), []).append(spent)

    def _measure(self, group: _Group, threads: int, rates: MachineRates) -> dict[str, Any]:
        found: dict[str, Any] = dict(rows=[], errors=[], left_out=[], names=[])
        jobs = self._jobs(group, found)
        if not jobs:
            return found
        ready: list[tuple[Job, float, int, float]] = []
        for job in jobs:
            needed, free = job.needed_memory(), free_memory(self.device)
            if free is not None and needed > 0.8 * free:
                found['left_out'].append(
                    f'{job.name}, {group}: needs about {needed / 2**30:.1f} GiB, '
                    f'{free / 2**30:.1f} GiB are free'
                )
                continue
            try:
                ready.append((job, *self._prepare(job)))
            except torch.cuda.OutOfMemoryError as error:
                found['left_out'].append(f'{job.name}, {group}: {short(error)}')
            except Exception as error:  # a contender that fails must not cost the others' rows
                found['errors'].append(f'{job.name}, {group}: {short(error)}')
                say(f'  error: {found["errors"][-1]}')
        scales = (rates.matmul, rates.copy)
        estimates = [seconds(scale, self.device) for scale in scales]
        samples = measure(
            [*scales, *(job for job, *_ in ready)],
            [max(each, self.settings.budget / _RATE_SAMPLES) for each in estimates]
            + [estimate for _, estimate, *_ in ready],
            self.device,
            self.settings.rounds,
            self.settings.budget,
        )
        matmul = MachineRates.multiply_adds_per_second(samples[0])
        copy = MachineRates.bytes_per_second(samples[1])
        for (job, _, peak, deviation), times in zip(ready, samples[2:], strict=True):
            row = make_row(job, times, threads, matmul, copy, bool(group.sparsities))
            # None: a runtime beside torch, whose memory torch does not see
            row |= dict(peak_bytes=peak or None, deviation=deviation)
            found['rows'].append(row)
            sparsity = f' {job.case.sparsity:.0%} pruned' if group.sparsities else ''
            say(
                f'  {job.name + sparsity:<42} {row["median_ms"]:10.3f} ms '
                f'{row["ratio"]:8.2f} x floor  n={len(times)}'
            )
        return found

    def _jobs(self, group: _Group, found: dict[str, Any]) -> list[Job]:
        """Those that compete in a group; the others are named in ``found``."""
        jobs: list[Job] = []
        sweep = bool(group.sparsities)
        for sparsity in group.sparsities or (0.0,):
            case = Case(group.shape, group.batch, self.device, self.seed, sparsity, group.dtype)
            for job in contenders(case, group.mode, self.backends, self.settings.few, sweep):
                name = job.name if isinstance(job, Job) else job.partition(':')[0]
                found['names'].append(name)
                if not self.settings.takes(name):
                    continue
                if isinstance(job, Job):
                    jobs.append(job)
                elif job not in found['left_out']:
                    found['left_out'].append(job)
        return jobs

    def _prepare(self, job: Job) -> tuple[float, int, float]:
        """Check the numbers; returns rough seconds, peak bytes and the deviation."""
        begin = time.perf_counter()
        result, peak = peak_memory(job, self.device)
        estimate = time.perf_counter() - begin
        deviation = job.check(result)
        del result
        if estimate < _CHEAP:
            _, peak = peak_memory(job, self.device)
            estimate = min(seconds(job, self.device) for _ in range(2))
        return estimate, peak, deviation

    @staticmethod
    def _kind(group: _Group) -> tuple[str, bool]:
        return group.mode, bool(group.sparsities)

    @staticmethod
    def _size(group: _Group) -> float:
        return group.batch * group.shape.channels * group.shape.size**2

    def _remaining(self, groups: Sequence[_Group]) -> str:
        """Rough time left, by the cost per position of the finished groups; '' if unknown."""
        total = 0.0
        for group in groups:
            known = self._group_seconds.get(self._kind(group))
            if not known:  # the other mode, or the sweep: not seen yet
                known = [pair for pairs in self._group_seconds.values() for pair in pairs]
            if not known:
                return ''
            size = self._size(group)
            near = min(known, key=lambda pair: abs(pair[0] - size))
            total += near[1] * max(1.0, size / near[0])
        return f' (about {clock(total)} left)'


def usable_backends(device: torch.device) -> tuple[list[str], dict[str, str]]:
    """Backends that run on a device, by trying, and the reasons of the others."""
    usable, others = [], {}
    shape = OperatorShape('probe', 0, 0, 2, 5, 7, 3, 1)
    for name, state in available_backends().items():
        if state is not True:
            others[name] = str(state)
            continue
        case = Case(shape, 1, device, 0, 0.0)
        try:
            shift_wise_conv2d(case.x, case.weight, case.pattern, backend=name)
        except Exception as error:  # whatever a backend says about a device that it does not serve
            others[name] = f'does not run on {device}: {short(error)}'
        else:
            usable.append(name)
    return usable, others
