"""A row of the operator benchmark: what was run, its times, and its floors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..measure import timing_of
from .job import Job


def make_row(
    job: Job, times: Sequence[float], threads: int, matmul: float, copy: float, sweep: bool
) -> dict[str, object]:
    """What ``benchmark.json`` says of a contender.

    Args:
        job: The contender.
        times: Samples, in seconds.
        threads: Threads of torch.
        matmul: Multiply-adds per second of the matrix product among the same samples.
        copy: Bytes per second of the copy among the same samples.
        sweep: Whether the row belongs to the sweep over the sparsity.
    """
    shape, case = job.case.shape, job.case
    timing = timing_of(times)
    arithmetic, moved = job.arithmetic() / matmul, job.moved_bytes() / copy
    floor = max(arithmetic, moved)
    return dict(
        shape=f'{shape.version} {shape.crop} stage {shape.stage}',
        version=shape.version,
        crop=shape.crop,
        stage=shape.stage,
        channels=shape.channels,
        size=shape.size,
        big_kernel=shape.big_kernel,
        small_kernel=shape.small_kernel,
        num_reps=shape.num_reps,
        batch=case.batch,
        threads=threads,
        mode=job.mode,
        dtype=type_name(case.dtype),
        sweep=sweep,
        sparsity=case.sparsity,
        name=job.name,
        kind=job.kind,
        **timing,
        multiply_adds=job.arithmetic(),
        moved_bytes=job.moved_bytes(),
        matmul_per_s=matmul,
        copy_bytes_per_s=copy,
        arithmetic_floor_ms=arithmetic * 1e3,
        bytes_floor_ms=moved * 1e3,
        floor_ms=floor * 1e3,
        ratio=timing['median_ms'] / 1e3 / floor,
    )


def type_name(dtype: torch.dtype) -> str:
    """``'float32'`` for ``torch.float32``."""
    return str(dtype).removeprefix('torch.')
