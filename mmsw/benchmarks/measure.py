"""Stopwatch and scales: time, memory and the rates of the machine itself."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_MATMUL_SIDE = 2048
_COPY_NUMBERS = 32 * 2**20
_SHORT = 0.02  # seconds: shorter calls run once untimed before each sample, for warm caches
_SAMPLE = 0.001  # seconds: shorter calls are repeated within a sample
_MAX_REPEAT = 50
_CPUINFO = Path('/proc/cpuinfo')
_BFLOAT16 = (('avx512_bf16', 'AVX512_BF16'), ('amx_bf16', 'AMX'), ('bf16', 'BF16'))


def synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, repeat: int = 1) -> float:
    """Seconds of one call, averaged over ``repeat``: of a clock, on CUDA between two events."""
    synchronize(device)
    if device.type == 'cuda':
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeat):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / repeat
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def peak_memory(call: Callable[[], object], device: torch.device) -> tuple[object, int]:
    """Result of a call and the most memory, in bytes, that it held at once beyond its inputs.

    On CUDA the caching allocator counts; on the CPU torch's allocator, as its profiler reports it.
    What a library takes from the system by itself (oneDNN's scratch, Taichi's pool) is not seen.
    """
    if device.type == 'cuda':
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        synchronize(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    result, profiler = profiled(call, device, profile_memory=True)
    return result, peak_of(profiler)


def peak_of(profiler: torch.profiler.profile) -> int:
    """Most memory, in bytes, that a profiled call held at once on the CPU beyond its inputs."""
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == '[memory]'
    )
    held = peak = 0
    for _, size in events:
        held += size
        peak = max(peak, held)
    return peak


def profiled(
    call: Callable[[], object], device: torch.device, **options: bool
) -> tuple[object, torch.profiler.profile]:
    """Result of a call, and torch's profile of it.

    Args:
        call: What to run.
        device: Where it runs.
        options: Of ``torch.profiler.profile``.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities, **options)
    with _quiet():
        profiler.start()
    try:
        result = call()
        synchronize(device)
    finally:
        with _quiet():
            profiler.stop()
    return result, profiler


def measure(
    calls: Sequence[Callable[[], object]],
    estimates: Sequence[float],
    device: torch.device,
    rounds: int,
    budget: float,
    least: int = 1,
) -> list[list[float]]:
    """Time calls in turns, so that a drift of the machine meets all of them alike.

    Args:
        calls: What to time.
        estimates: Rough seconds of each call.
        device: Where they run.
        rounds: Most samples of a call.
        budget: Seconds to spend on a call.
        least: Samples of a call that are taken whatever the budget.

    Returns:
        Samples of each call, in seconds.
    """
    counts = [
        max(
            least,
            min(rounds, int(budget / max(estimate, _SAMPLE) / (2 if estimate < _SHORT else 1))),
        )
        for estimate in estimates
    ]
    repeats = [
        max(1, min(_MAX_REPEAT, round(_SAMPLE / max(estimate, 1e-7)))) for estimate in estimates
    ]
    samples: list[list[float]] = [[] for _ in calls]
    for turn in range(rounds):
        for call, estimate, count, repeat, times in zip(
            calls, estimates, counts, repeats, samples, strict=True
        ):
            if turn * count // rounds == (turn + 1) * count // rounds:
                continue  # this call takes fewer samples, spread over the rounds
            if len(times) >= least and sum(times) * repeat > 2 * budget:
                continue  # the estimate was too low
            if estimate < _SHORT:
                call()
            times.append(seconds(call, device, repeat))
    return samples


def timing_of(times: Sequence[float]) -> dict[str, float]:
    """What a report says of samples in seconds; the spread is the interquartile range / median."""
    median = statistics.median(times)
    quarter = statistics.quantiles(times, n=4, method='inclusive') if len(times) > 1 else [0.0] * 3
    return dict(
        median_ms=median * 1e3,
        min_ms=min(times) * 1e3,
        max_ms=max(times) * 1e3,
        spread=(quarter[2] - quarter[0]) / median,
        samples=len(times),
    )


class MachineRates:
    """The two scales of the floor as calls that are timed among the contenders."""

    def __init__(self, device: torch.device) -> None:
        self.left = torch.randn(_MATMUL_SIDE, _MATMUL_SIDE, device=device)
        self.product = torch.empty_like(self.left)
        self.source = torch.ones(_COPY_NUMBERS, device=device)
        self.target = torch.zeros_like(self.source)

    def matmul(self) -> None:
        torch.mm(self.left, self.left, out=self.product)

    def copy(self) -> None:
        self.target.copy_(self.source)

    @staticmethod
    def multiply_adds_per_second(times: Sequence[float]) -> float:
        """Rate of a float32 matrix product of side 2048."""
        return _MATMUL_SIDE**3 / statistics.median(times)

    @staticmethod
    def bytes_per_second(times: Sequence[float]) -> float:
        """Bytes read plus bytes written by a copy of 128 MiB."""
        return 2 * 4 * _COPY_NUMBERS / statistics.median(times)


def machine(device: torch.device) -> dict[str, object]:
    """What the figures depend on: processor, device, versions, date."""
    found: dict[str, object] = dict(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        cpu=_cpu_model(),
        cpus=usable_cpus(),
        system=platform.system(),
        architecture=platform.machine(),
        python=platform.python_version(),
        torch=torch.__version__,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        bfloat16_instructions=_bfloat16_instructions(),
        device=str(device),
    )
    if hasattr(os, 'getloadavg'):
        found['load_average'] = round(os.getloadavg()[0], 2)
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        found |= dict(
            gpu=properties.name,
            compute_capability=f'{properties.major}.{properties.minor}',
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
        )
    return found


def training_device() -> torch.device:
    """Where mmengine trains on this machine."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def packages(names: Sequence[str]) -> dict[str, str]:
    """Versions of packages, by name."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = 'not installed'
    return found


def usable_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory(device: torch.device) -> int | None:
    """Free bytes on the device, ``None`` where nobody says."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    try:
        for line in Path('/proc/meminfo').read_text(encoding='utf-8').splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _cpu_model() -> str:
    return _cpuinfo('model name') or platform.processor() or platform.machine()


def _bfloat16_instructions() -> str:
    """What the processor multiplies bfloat16 numbers with, by name."""
    flags = set((_cpuinfo('flags') or _cpuinfo('Features')).split())
    if not flags:
        return 'unknown'
    return ', '.join(name for flag, name in _BFLOAT16 if flag in flags) or 'none'


def _cpuinfo(key: str) -> str:
    """What Linux says of the first processor; ``''`` where it says nothing."""
    try:
        for line in _CPUINFO.read_text(encoding='utf-8').splitlines():
            name, _, value = line.partition(':')
            if name.strip() == key:
                return value.strip()
    except OSError:
        pass
    return ''


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the profiler's library prints when it starts and stops."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, 'w', encoding='utf-8') as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
