"""Who competes in the operator benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsw.analysis.complexity.operator_work import small_conv_work
from mmsw.ops import cross_conv2d, depthwise_conv2d, shift_add, shift_wise_conv2d
from mmsw.ops.assemble import assemble
from mmsw.ops.backends import backend_module

from . import runtimes
from .cases import Case, Tensors
from .job import BASELINE, BOTH, FOLDED, FORWARD, FUSED, TWO_STEPS, Job
from .shift_alternatives import ALTERNATIVES

SLICES = 'small conv + slices'
SLAK = 'SLaK pair'
SLAK_TRANSPOSED = 'SLaK pair, wide side transposed'
_SLAK_SIDE = 5
_DENSE_SIDES = (31, 13, 7)


def contenders(
    case: Case, mode: str, backends: Sequence[str], quick: bool = False, sweep: bool = False
) -> list[Job | str]:
    """Everything that competes on a case; a string says what is left out, and why.

    Maps of half precision are run by the backends only.

    Args:
        case: Shape and data.
        mode: ``FORWARD`` or ``BOTH``.
        backends: Names of the backends to run.
        quick: Only the backends, other runtimes, slices, the SLaK pair and 7x7.
        sweep: Only what a sweep over the sparsity shows.
    """
    jobs: list[Job | str] = list(_own(case, mode, backends))
    if sweep and case.shape.num_reps > 1:
        return [_fused(case, mode, backend) for backend in backends]
    if sweep:
        if mode == BOTH and case.sparsity:
            jobs.extend(_masked(case, backend) for backend in backends)
        if not quick and mode == FORWARD:
            jobs.append(_two_steps(case, mode, SLICES, 'slices'))
        return jobs
    if mode == FORWARD:
        jobs.extend(
            _folded(case, backend)
            for backend in backends
            if hasattr(backend_module(backend), 'cross_conv2d')
        )
    if case.dtype != torch.float32:
        return jobs
    if mode == FORWARD and case.device.type == 'cpu':
        jobs.extend(runtimes.jobs(case, folded_arms(case)))
    jobs.append(_two_steps(case, mode, SLICES, 'slices'))
    jobs.append(_slak(case, mode, SLAK, transposed=False))
    if case.device.type == 'cpu':
        jobs.append(_slak(case, mode, SLAK_TRANSPOSED, transposed=True))
    cutting = [name for name in backends if hasattr(backend_module(name), 'depthwise_conv2d')]
    jobs.extend(_slak(case, mode, f'{SLAK}, mmsw {name}', backend=name) for name in cutting)
    if not quick:
        jobs.extend(_ways_to_shift(case, mode, backends))
        jobs.append(_small_conv(case, mode))
    for side in _DENSE_SIDES:
        if side == 7 or not quick:
            jobs.extend(_dense(case, mode, side, backend) for backend in (None, *cutting))
    return jobs


def _own(case: Case, mode: str, backends: Sequence[str]) -> Iterator[Job]:
    """The fused operator by every backend; `cpp` in both of its arithmetics, where it has two."""
    for backend in backends:
        yield _fused(case, mode, backend)
        if backend == 'cpp' and hasattr(torch.ops.mmsw_cpp, 'set_arithmetic'):
            job = _fused(case, mode, backend)
            other = {'direct': 'reduced', 'reduced': 'direct'}[torch.ops.mmsw_cpp.arithmetic()]
            job.name, job.setting = f'mmsw cpp, {other}', partial(_arithmetic, other)
            yield job


@contextmanager
def _arithmetic(name: str) -> Iterator[None]:
    before = torch.ops.mmsw_cpp.arithmetic()
    torch.ops.mmsw_cpp.set_arithmetic(name)
    try:
        yield
    finally:
        torch.ops.mmsw_cpp.set_arithmetic(before)


def _ways_to_shift(case: Case, mode: str, backends: Sequence[str]) -> Iterator[Job | str]:
    """Small convolutions followed by every other way to shift and add."""
    for backend in backends:
        if backend != 'torch':
            yield _own_shift_add(case, mode, backend)
    for name in ALTERNATIVES:
        if name == 'slices':
            continue
        try:
            yield _two_steps(case, mode, f'small conv + {name}', name)
        except ImportError as error:
            yield f'small conv + {name}: {error}'


def _operator_work(case: Case) -> float:
    """Multiply-adds that are left: with one repetition a pruned filter is an empty slot."""
    kept = 1 - case.sparsity if case.shape.num_reps == 1 else 1.0
    return case.batch * case.shape.multiply_adds() * kept


def _fused(case: Case, mode: str, backend: str) -> Job:
    return Job(
        f'mmsw {backend}', FUSED, mode, case,
        lambda x, weight: shift_wise_conv2d(x, weight, case.pattern, backend=backend),
        (case.x, case.weight), case.definition, _operator_work(case), backend,
    )  # fmt: skip


def _two_steps(case: Case, mode: str, name: str, alternative: str) -> Job:
    shift = ALTERNATIVES[alternative](case.pattern, case.shape.size, case.shape.size)
    return Job(
        name, TWO_STEPS, mode, case,
        lambda x, weight: shift(case.small_conv(x, weight)),
        (case.x, case.weight), case.definition, _operator_work(case),
    )  # fmt: skip


def _own_shift_add(case: Case, mode: str, backend: str) -> Job:
    return Job(
        f'small conv + mmsw {backend} shift_add', TWO_STEPS, mode, case,
        lambda x, weight: shift_add(case.small_conv(x, weight), case.pattern, backend=backend),
        (case.x, case.weight), case.definition, _operator_work(case), backend,
    )  # fmt: skip


def _small_conv(case: Case, mode: str) -> Job:
    side, size = case.shape.small_kernel, case.shape.size
    return Job(
        'small conv', BASELINE, mode, case,
        lambda x, weight: (case.small_conv(x, weight),),
        (case.x, case.weight),
        lambda x, weight, some: (F.conv2d(x, weight, padding=side - 1, groups=len(some)),),
        small_conv_work(len(case.weight), side, case.batch, size, size),
    )  # fmt: skip


def _masked(case: Case, backend: str) -> Job:
    """The gradient of pruned filters is not asked for."""
    mask = case.kept
    groups = case.pattern.num_groups

    def definition(x: Tensor, weight: Tensor, some: Tensor) -> Tensors:
        kept = mask.view(-1, groups)[some].view(-1, 1, 1, 1)
        return case.definition(x, weight * kept, some)

    return Job(
        f'mmsw {backend}, masked', FUSED, BOTH, case,
        lambda x, weight: shift_wise_conv2d(x, weight, case.pattern, backend=backend, mask=mask),
        (case.x, case.weight), definition, _operator_work(case), backend, mask,
    )  # fmt: skip


def folded_arms(case: Case) -> tuple[Tensor, Tensor]:
    """The two arms that take the place of the three kernels, ``[C, taps, N]``."""
    wide, tall, small = assemble(case.weight, case.pattern.tables())
    tall, side = tall.clone(), case.shape.small_kernel
    start = tall.shape[1] // 2 - side // 2
    tall[:, start : start + side] += small
    return wide.contiguous(), tall


def _folded(case: Case, backend: str) -> Job:
    wide, tall = folded_arms(case)
    return Job(
        f'mmsw {backend} folded', FOLDED, FORWARD, case,
        lambda x, wide, tall: (cross_conv2d(x, wide, tall, backend=backend),),
        (case.x, wide, tall),
        lambda x, wide, tall, some: (cross_conv2d(x, wide, tall, backend='torch'),),
        case.batch * case.shape.folded_multiply_adds(),
    )  # fmt: skip


def _slak(
    case: Case, mode: str, name: str, transposed: bool = False, backend: str | None = None
) -> Job:
    """``M x 5 + 5 x M``, the branch pair of SLaK; with a backend, cut into small kernels."""
    shape, big = case.shape, case.shape.big_kernel
    big += 1 - big % 2
    tall, wide = (
        case.randn(shape.channels, 1, *sides) / big
        for sides in ((big, _SLAK_SIDE), (_SLAK_SIDE, big))
    )

    def run(x: Tensor, tall: Tensor, wide: Tensor) -> Tensors:
        if transposed:
            return (_depthwise(x, tall) + _depthwise(x.mT, wide.mT).mT,)
        return (_depthwise(x, tall, backend) + _depthwise(x, wide, backend),)

    return Job(
        name, BASELINE, mode, case, run, (case.x, tall, wide),
        lambda x, tall, wide, some: (_depthwise(x, tall) + _depthwise(x, wide),),
        case.batch * shape.channels * shape.size**2 * 2 * big * _SLAK_SIDE, backend,
    )  # fmt: skip


def _dense(case: Case, mode: str, side: int, backend: str | None = None) -> Job:
    """A square kernel; with a backend, cut into small ones."""
    shape, name = case.shape, f'depthwise {side}x{side}'
    weight = case.randn(shape.channels, 1, side, side) / side
    return Job(
        name if backend is None else f'{name}, mmsw {backend}', BASELINE, mode, case,
        lambda x, weight: (_depthwise(x, weight, backend),), (case.x, weight),
        lambda x, weight, some: (_depthwise(x, weight),),
        case.batch * shape.channels * shape.size**2 * side**2, backend,
    )  # fmt: skip


def _depthwise(x: Tensor, weight: Tensor, backend: str | None = None) -> Tensor:
    """Depthwise convolution with "same" zero padding, of torch or of a backend.

    Where a weight gradient is wanted, rows are padded beforehand: oneDNN's is wrong when more than
    15 rows of padding are asked of the convolution itself (torch 2.13, CPU, float32).
    """
    if backend is not None:
        return depthwise_conv2d(x, weight, backend=backend)
    rows, columns = weight.shape[2] // 2, weight.shape[3] // 2
    if x.device.type == 'cpu' and torch.is_grad_enabled() and rows > 15:
        x, rows = F.pad(x, (0, 0, rows, rows)), 0
    return F.conv2d(x, weight, padding=(rows, columns), groups=x.shape[1])
