"""The Taichi backend: one kernel source for Taichi's CPU and CUDA archs.

Taichi is imported and started by the first call, never by importing this module. If the program
has started Taichi itself, that runtime is used as it is; otherwise ``ti.init`` runs with the arch
of the first tensor and, on the CPU, with as many threads as torch has at that time. One process has
one Taichi arch: a tensor on another kind of device raises an error.

Kernels work on torch's memory. On CUDA, Taichi has a stream of its own: the current torch stream is
synchronized before every launch (``torch.cuda.current_stream().synchronize()``) and Taichi after it
(``ti.sync()``), so the order of torch's stream holds, at the price of waiting on the host.

``shift_wise_conv2d`` and its gradients run on the assembled cross kernels, cut into blocks of
N x N taps. Blocks of zeros are not in the lists that the kernels walk, so pruned kernels cost
nothing. float32 and float64 are computed as they are, half types in float32. Every sum has one
owner and a fixed order: results repeat bit for bit, whatever the number of threads.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..assemble import CrossKernels, arm_taps, assemble, disassemble
from ..pattern_tables import PatternTables, num_groups
from .backend import Outputs
from .call import Call
from .taichi_runtime import run_kernel, running_kernels

NEEDS_CHECK = False

_UNAVAILABLE_REASON = (
    None
    if importlib.util.find_spec('taichi') is not None
    else 'the package taichi is not installed; install it with "pip install taichi"'
)


def unavailable_reason() -> str | None:
    """Why the backend cannot run here; ``None`` if it can."""
    return _UNAVAILABLE_REASON


def refuses(call: Call) -> str | None:
    """It takes every floating dtype and every size, on the CPU and on CUDA."""
    if call.device.type not in ('cpu', 'cuda'):
        return f'it takes tensors on cpu or cuda, not on {call.device.type}'
    return None


def shift_add(conv_out: Tensor, pattern: PatternTables) -> Outputs:
    """Shift and add, one work item per row of the outputs."""
    margin, groups = pattern.margin, pattern.num_groups
    channels, num_reps = pattern.channels, pattern.num_reps
    batch = conv_out.shape[0]
    height, width = conv_out.shape[2] - 2 * margin, conv_out.shape[3] - 2 * margin
    source = conv_out.detach().to(_work_dtype(conv_out.dtype)).contiguous()
    outputs = tuple(source.new_empty(batch, channels, height, width) for _ in range(3))
    if not batch:
        return tuple(out.to(conv_out.dtype) for out in outputs)
    tables = _flat(pattern.shift_hv), _flat(pattern.identity_index.to(torch.int32))
    with running_kernels(source) as kernels:
        launch = kernels.row_kernels(_taichi_dtype(source)).shift_add
        for sample in range(0, batch, _samples(kernels, source)):
            chunk = slice(sample, sample + _samples(kernels, source))
            run_kernel(
                launch,
                _flat(source[chunk]),
                *tables,
                *(_flat(out[chunk]) for out in outputs),
                outputs[0][chunk].shape[0] * channels,
                channels,
                groups,
                num_reps,
                height,
                width,
                margin,
            )
    return tuple(out.to(conv_out.dtype) for out in outputs)


def shift_add_grad(grads: Outputs, pattern: PatternTables) -> Tensor:
    """Gradient of :func:`shift_add`, one work item per row of ``conv_out``."""
    margin, groups = pattern.margin, pattern.num_groups
    channels, num_reps = pattern.channels, pattern.num_reps
    batch, _, height, width = grads[0].shape
    dtype = _work_dtype(grads[0].dtype)
    sources = [grad.detach().to(dtype).contiguous() for grad in grads]
    out = sources[0].new_empty(batch, channels * groups, height + 2 * margin, width + 2 * margin)
    if not batch:
        return out.to(grads[0].dtype)
    tables = _flat(pattern.shift_hv), _flat(pattern.identity_index.to(torch.int32))
    with running_kernels(out) as kernels:
        launch = kernels.row_kernels(_taichi_dtype(out)).shift_add_grad
        for sample in range(0, batch, _samples(kernels, out)):
            chunk = slice(sample, sample + _samples(kernels, out))
            run_kernel(
                launch,
                *(_flat(source[chunk]) for source in sources),
                *tables,
                _flat(out[chunk]),
                out[chunk].shape[0] * channels,
                channels,
                groups,
                num_reps,
                height,
                width,
                margin,
            )
    return out.to(grads[0].dtype)


def shift_wise_conv2d(x: Tensor, weight: Tensor, pattern: PatternTables) -> Outputs:
    """Both steps through the blocks of the cross kernels."""
    if not x.numel():
        return tuple(x.new_empty(x.shape) for _ in range(3))
    dtype = _work_dtype(x.dtype)
    arms = _arms(x, weight, pattern)
    outputs = []
    with running_kernels(x) as kernels:
        source = _pad(x.detach().to(dtype), arms[0].left, arms[1].above)
        for arm in arms:
            out = _new_map(x, dtype)
            arm.correlate(kernels, source, out, arms[0].left, arms[1].above, x.shape, False)
            outputs.append(_crop(out, x))
    return tuple(outputs)


def shift_wise_conv2d_grad_input(grads: Outputs, weight: Tensor, pattern: PatternTables) -> Tensor:
    """Gradient with respect to ``x``: the same kernels with the blocks turned around."""
    like = grads[0]
    if not like.numel():
        return like.new_empty(like.shape)
    dtype = _work_dtype(like.dtype)
    arms = _arms(like, weight, pattern, True)
    out = _new_map(like, dtype)
    with running_kernels(like) as kernels:
        for arm, grad in zip(arms, grads, strict=True):
            source = _pad(grad.detach().to(dtype), arm.left, arm.above)
            add = arm is not arms[0]
            arm.correlate(kernels, source, out, arm.left, arm.above, grad.shape, add)
    return _crop(out, like)


def shift_wise_conv2d_grad_weight(
    grads: Outputs, x: Tensor, pattern: PatternTables, mask: Tensor | None = None
) -> Tensor:
    """Gradient with respect to the small kernels: that of the blocks, gathered."""
    big, n = pattern.big_kernel, pattern.small_kernel
    channels, groups = x.shape[1], pattern.num_groups
    if not x.numel():
        return x.new_zeros(channels * groups, 1, n, n)
    dtype = _work_dtype(x.dtype)
    arms = [_Arm(kind, None, big, n, *x.shape[2:]) for kind in range(3)]
    left, above = arms[0].left, arms[1].above
    blocks = []
    with running_kernels(x) as kernels:
        source = _pad(x.detach().to(dtype), left, above)
        for arm, grad in zip(arms, grads, strict=True):
            columns = _columns(x.shape[3])
            grad = F.pad(grad.detach().to(dtype), (0, -x.shape[3] % columns)).contiguous()
            blocks.append(arm.correlate_grad(kernels, source, grad, left, above, x.shape))
    length = groups * n
    wide = _centre(blocks[0].transpose(2, 3).reshape(channels, length, n), big, n)
    tall = _centre(blocks[1].reshape(channels, length, n), big, n)
    cross = CrossKernels(wide, tall, blocks[2].view(channels, n, n))
    return disassemble(cross, pattern, mask).to(x.dtype)


class _Arm:
    """One output's kernel as blocks of ``side`` x ``side`` taps, and where they lie.

    Args:
        kind: 0 wide, 1 tall, 2 identity.
        kernel: ``[C, slots, N, N]`` (rows, columns) in compute dtype; ``None`` for gradients.
        big_kernel: Focus length M.
        small_kernel: Side N.
        height: Rows of the map.
        width: Columns of the map.
        flip: Whether the kernel is turned around both axes.
    """

    def __init__(
        self,
        kind: int,
        kernel: Tensor | None,
        big_kernel: int,
        small_kernel: int,
        height: int,
        width: int,
        flip: bool = False,
    ) -> None:
        n = small_kernel
        self.side = next(side for side in (5, 3, 1) if n % side == 0)
        self.parts = n // self.side
        self.slots = 1 if kind == 2 else num_groups(big_kernel, n)
        self.n = n
        first = -(n // 2) if kind == 2 else -(big_kernel // 2)
        last = first + self.slots * n - 1
        if flip:
            first, last = -last, -first
        reach = max(-first, last, n // 2)
        along = width if kind == 0 else height
        self.left, self.above = n // 2, n // 2
        if kind == 0:
            self.left = min(reach, along + n)
        elif kind == 1:
            self.above = min(reach, along + n)
        self.kind, self.first, self.along, self.flip = kind, first, along, flip
        self.weight = None
        if kernel is not None:
            if flip:
                kernel = kernel.flip(1, 2, 3)
            self.weight = self._split(kernel)

    def _split(self, kernel: Tensor) -> Tensor:
        """``[C, slots, N, N]`` to contiguous ``[C, slots * parts ** 2, side, side]``."""
        shape = (kernel.shape[0], self.slots, self.parts, self.side, self.parts, self.side)
        parts = kernel.reshape(shape).transpose(3, 4)
        return parts.reshape(shape[0], -1, self.side, self.side).contiguous()

    def _join(self, parts: Tensor) -> Tensor:
        """Inverse of :meth:`_split`."""
        shape = (parts.shape[0], self.slots, self.parts, self.parts, self.side, self.side)
        return parts.view(shape).transpose(3, 4).reshape(shape[0], self.slots, self.n, self.n)

    def _place(self, left: int, above: int) -> tuple[list[bool], list[int]]:
        """Per block: whether it reaches the map, and its offset in the padded map."""
        used, place = [], []
        for slot in range(self.slots):
            tap = self.first + slot * self.n
            inside = tap < self.along and tap + self.n > -self.along + 1
            for down in range(self.parts):
                for right in range(self.parts):
                    across = (tap if self.kind == 0 else -(self.n // 2)) + right * self.side
                    along = (tap if self.kind != 0 else -(self.n // 2)) + down * self.side
                    used.append(self.kind == 2 or inside)
                    place += [above + along, left + across] if used[-1] else [above, left]
        return used, place

    def correlate(
        self,
        kernels: ModuleType,
        source: Tensor,
        out: Tensor,
        left: int,
        above: int,
        shape: torch.Size,
        add: bool,
    ) -> None:
        """Write or add to ``out`` the padded map ``source``, correlated with the kernel."""
        used, place = self._place(left, above)
        device = source.device
        slots = len(used)
        index = torch.arange(slots, device=device).masked_fill(
            ~torch.tensor(used, device=device), slots
        )
        zero = (self.weight == 0).flatten(2).all(2)
        index = index.expand(shape[1], -1).masked_fill(zero, slots).sort(1).values
        blocks = F.pad(index.masked_fill(index == slots, -1), (0, 1), value=-1).to(torch.int32)
        columns = _columns(shape[3])
        launch = kernels.tile_kernels(_taichi_dtype(source), self.side, columns).correlate
        tables = (
            _flat(self.weight),
            _flat(blocks),
            torch.tensor(place, dtype=torch.int32, device=device),
        )
        step = _samples(kernels, source)
        for sample in range(0, shape[0], step):
            chunk = slice(sample, sample + step)
            run_kernel(
                launch,
                _flat(source[chunk]),
                *tables,
                _flat(out[chunk]),
                out[chunk].shape[0] * shape[1],
                shape[1],
                slots,
                shape[2],
                shape[3],
                above,
                left,
                int(add),
                1,
            )

    def correlate_grad(
        self,
        kernels: ModuleType,
        source: Tensor,
        grad: Tensor,
        left: int,
        above: int,
        shape: torch.Size,
    ) -> Tensor:
        """Gradient of the kernel: ``[C, slots, N, N]``."""
        used, place = self._place(left, above)
        columns = _columns(shape[3])
        launch = kernels.tile_kernels(_taichi_dtype(source), self.side, columns).correlate_grad
        table = torch.tensor(place, dtype=torch.int32, device=source.device)
        total = None
        step = _samples(kernels, source)
        for sample in range(0, shape[0], step):
            chunk = slice(sample, sample + step)
            lanes = source.new_empty(shape[1], len(used), self.side, self.side, columns)
            run_kernel(
                launch,
                _flat(source[chunk]),
                _flat(grad[chunk]),
                table,
                _flat(lanes),
                source[chunk].shape[0],
                shape[1],
                len(used),
                shape[2],
                shape[3],
                above,
                left,
                1,
            )
            part = lanes.sum(4)
            total = part if total is None else total + part
        unused = ~torch.tensor(used, device=source.device)
        return self._join(total.masked_fill(unused.view(1, -1, 1, 1), 0))


def _arms(x: Tensor, weight: Tensor, pattern: PatternTables, flip: bool = False) -> list[_Arm]:
    """The three kernels as blocks, assembled in the compute dtype."""
    big, n = pattern.big_kernel, pattern.small_kernel
    weight = weight.detach().to(_work_dtype(x.dtype))
    kernels = assemble(weight, pattern)
    channels, slots = x.shape[1], pattern.num_groups
    before = arm_taps(big, n) // 2 - big // 2
    wide, tall = (
        arm[:, before : before + slots * n].reshape(channels, slots, n, n) for arm in kernels[:2]
    )
    blocks = (wide.transpose(2, 3), tall, kernels.small.unsqueeze(1))
    return [_Arm(k, blocks[k], big, n, *x.shape[2:], flip) for k in range(3)]


def _centre(arm: Tensor, big_kernel: int, small_kernel: int) -> Tensor:
    """Pad the slots ``[C, nk * N, N]`` to the full arm that ``disassemble`` takes."""
    taps = arm_taps(big_kernel, small_kernel)
    before = taps // 2 - big_kernel // 2
    return F.pad(arm, (0, 0, before, taps - arm.shape[1] - before))


def _columns(width: int) -> int:
    """Columns of a tile: 16, or 8 where that rounds the width up by less."""
    return 8 if 0 < width % 16 <= 8 else 16


def _pad(x: Tensor, left: int, above: int) -> Tensor:
    """Zeros around a map whose size is rounded up to whole tiles."""
    return F.pad(
        x.contiguous(),
        (left, left + -x.shape[3] % _columns(x.shape[3]), above, above + -x.shape[2] % 4),
    )


def _new_map(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An output ``[B, C, H, W]`` whose width is rounded up to whole tiles."""
    width = x.shape[3] + -x.shape[3] % _columns(x.shape[3])
    return x.new_empty((*x.shape[:3], width), dtype=dtype)


def _crop(out: Tensor, x: Tensor) -> Tensor:
    return out[..., : x.shape[3]].to(x.dtype).contiguous()


def _flat(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1)


def _samples(kernels: ModuleType, largest: Tensor) -> int:
    """Samples of a batch that one launch takes: Taichi's indices are 32-bit."""
    sample = largest[0].numel()
    if sample >= kernels.INDEX_LIMIT:
        raise ValueError(
            f'backend "taichi" handles up to {kernels.INDEX_LIMIT} elements per sample, a map of '
            f'shape {tuple(largest.shape[1:])} (padding included) has {sample}; '
            'use a smaller map or another backend'
        )
    return (kernels.INDEX_LIMIT - 1) // sample


def _work_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _taichi_dtype(tensor: Tensor) -> object:
    import taichi as ti

    return ti.f64 if tensor.dtype == torch.float64 else ti.f32
