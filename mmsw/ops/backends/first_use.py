"""A backend that has not been seen at work on a device compares itself with ``torch`` there first.

The comparison takes one tiny map, all operators and all gradients. It runs once per device, dtype
and side of the small kernels, in milliseconds.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import torch
from torch import Tensor

from ..pattern import ShiftPattern
from . import torch_backend
from .backend import Backend
from .call import Call

# Largest error that passes, relative to the largest magnitude of a result: several times what sums
# in float32 (float64 for float64) and one rounding of the result bring.
_BOUNDS = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}
_BATCH, _CHANNELS, _REPS, _HEIGHT, _WIDTH = 2, 3, 2, 5, 37  # two tiles, shorter than an arm

_lock = threading.Lock()
_verdicts: dict[tuple, str | None] = {}
_passed: set[tuple] = set()  # what a tracing compiler may ask for


def has_passed(name: str, module: Backend, call: Call) -> bool:
    """Whether a comparison has been made and was good; only reads, for tracing compilers."""
    return _key(name, _within_limits(module, call)) in _passed


def can_compare(call: Call) -> bool:
    """Whether kernels may be run now: not while a program is traced or a CUDA graph captured."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return call.device.type != 'cuda' or not torch.cuda.is_current_stream_capturing()


def find_problem(name: str, module: Backend, call: Call) -> str | None:
    """Compares a backend with ``torch``, or repeats what an earlier comparison found.

    Args:
        name: Name of the backend.
        module: The backend; see :class:`~mmsw.ops.backends.backend.Backend`.
        call: What it is about to run.

    Returns:
        What is wrong with it, in one line, or ``None``.
    """
    call = _within_limits(module, call)
    key = _key(name, call)
    with _lock:
        if key not in _verdicts:
            # Modes, autocast and grad mode belong to a thread: a new one has none of the caller's.
            with ThreadPoolExecutor(1) as pool:
                _verdicts[key] = pool.submit(_compare, module, call).result()
            if _verdicts[key] is None:
                _passed.add(key)
        return _verdicts[key]


def _key(name: str, call: Call) -> tuple:
    return name, call.device.type, call.device.index, call.dtype, call.small_kernel


def _within_limits(module: Backend, call: Call) -> Call:
    """The sizes to compare with: some functions take sides that are too large for the rest."""
    big_kernel = 2 * call.small_kernel + 7
    call = call._replace(function='shift_wise_conv2d', big_kernel=big_kernel, num_reps=_REPS)
    if module.refuses(call) is None:
        return call
    return call._replace(big_kernel=13, small_kernel=3)


@torch.no_grad()
def _compare(module: Backend, call: Call) -> str | None:
    on_device = torch.cuda.device(call.device) if call.device.type == 'cuda' else nullcontext()
    with on_device:
        for dtype in dict.fromkeys((torch.float32, call.dtype)):
            if dtype not in _BOUNDS:
                continue
            try:
                found = _results(module, call, dtype, on_host=False)
            except Exception as error:  # whatever a broken build raises is the finding
                lines = str(error).splitlines() or ['']
                return f'on a tiny map of {dtype} it raises {type(error).__name__}: {lines[0]}'
            exact = _results(torch_backend, call, dtype, on_host=True)
            for part, result in found.items():
                error = _relative_error(result, exact[part])
                if not error <= _BOUNDS[dtype]:  # NaN is an error, too
                    return (
                        f'on a tiny map of {dtype} its {part} differs from that of torch by '
                        f'{error:.1e} of the largest value, and {_BOUNDS[dtype]:.0e} is allowed'
                    )
    return None


def _results(module: Backend, call: Call, dtype: torch.dtype, on_host: bool) -> dict[str, Tensor]:
    """Every operator and gradient of a backend, on the device, or in float64 on the CPU."""
    side = call.small_kernel
    pattern = ShiftPattern.draw(call.big_kernel, side, _CHANNELS, call.num_reps)
    kernels, border = _CHANNELS * pattern.num_groups, 2 * pattern.margin
    generator = torch.Generator('cpu').manual_seed(0)  # the global random state stays as it is

    def draw(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64, device='cpu')
        values = values.to(dtype)
        return values.double() if on_host else values.to(call.device)

    map_shape = _BATCH, _CHANNELS, _HEIGHT, _WIDTH
    x, grads = draw(*map_shape), tuple(draw(*map_shape) for _ in range(3))
    weight = draw(kernels, 1, side, side)
    conv_out = draw(_BATCH, kernels, _HEIGHT + border, _WIDTH + border)
    tables = pattern.to('cpu' if on_host else call.device).tables()
    outputs = module.shift_wise_conv2d(x, weight, tables)
    added = module.shift_add(conv_out, tables)
    results = {
        **{f'shift_wise_conv2d (output {i})': out for i, out in enumerate(outputs)},
        **{f'shift_add (output {i})': out for i, out in enumerate(added)},
        'shift_wise_conv2d_grad_input': module.shift_wise_conv2d_grad_input(grads, weight, tables),
        'shift_wise_conv2d_grad_weight': module.shift_wise_conv2d_grad_weight(grads, x, tables),
        'shift_add_grad': module.shift_add_grad(grads, tables),
    }
    if hasattr(module, 'cross_conv2d'):
        arms = draw(_CHANNELS, 2 * side + 7, side), draw(_CHANNELS, side, side)
        results['cross_conv2d'] = module.cross_conv2d(x, *arms, draw(_CHANNELS))
    if hasattr(module, 'depthwise_conv2d'):
        kernel = draw(_CHANNELS, 1, 2 * side + 1, side + 2)
        results['depthwise_conv2d'] = module.depthwise_conv2d(x, kernel, draw(_CHANNELS), side)
        grad = module.depthwise_conv2d_grad_input(grads[0], kernel, side)
        results['depthwise_conv2d_grad_input'] = grad
        grad = module.depthwise_conv2d_grad_weight(grads[0], x, tuple(kernel.shape[2:]), side)
        results['depthwise_conv2d_grad_weight'] = grad
    return results


def _relative_error(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float('inf')
    return float((found.cpu().double() - expected).abs().max() / expected.abs().max())
