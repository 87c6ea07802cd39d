"""Which kind of work a network spends its time on, from torch's profiler by operator name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import DeviceType

from ..measure import peak_memory, peak_of, profiled

PRODUCTS, OPERATOR, NORMS, ACTIVATION = 'products', 'operator', 'norms', 'activation'
ELEMENTWISE, COPIES, OTHER = 'element-wise', 'copies', 'other'
KINDS = (PRODUCTS, OPERATOR, NORMS, ACTIVATION, ELEMENTWISE, COPIES, OTHER)

_TAIL = '(_|_backward|_backward_data)?$'
# The first that is found in the name, without what stands before its last '::'.
_RULES = [
    (kind, re.compile(pattern))
    for kind, pattern in (
        (ACTIVATION, 'gelu|relu|sigmoid|silu|threshold|clamp_min|softmax|tanh|hardswish'),
        (NORMS, 'norm|^row_(moments|products|sums)'),
        (OPERATOR, 'shift_wise|shift_add|cross_conv|depthwise'),
        (PRODUCTS, r'conv|attention|linear|matmul|^(add|b|baddb)?mm_?$'),
        (
            COPIES,
            r'^(copy|_?cat|stack|clone|contiguous|index|index_(select|put|add|copy)|gather|scatter|'
            r'_index_put_impl|roll|pad|(constant|reflection|replication)_pad\w*|fill|zero|zeros|'
            r'_?to|_to_copy|repeat|masked_fill|slice|select|im2col|col2im)' + _TAIL,
        ),
        (
            ELEMENTWISE,
            '^(add|sub|rsub|mul|div|pow|sum|mean|var|sqrt|rsqrt|neg|exp|where|any|eq|ne|square|'
            'lerp|reciprocal|addcmul|addcdiv|ge|gt|le|lt|abs|native_dropout|bernoulli)' + _TAIL,
        ),
    )
]


def inspected(
    call: Callable[[], object], device: torch.device
) -> tuple[object, int, dict[str, float]]:
    """Result of a call, the most memory that it held beyond its inputs, and :func:`shares_of` it.

    It is called once on the CPU, and twice on CUDA, where the allocator counts.
    """
    if device.type == 'cuda':
        _, peak = peak_memory(call, device)
        result, profile = profiled(call, device, record_shapes=True)
    else:
        result, profile = profiled(call, device, record_shapes=True, profile_memory=True)
        peak = peak_of(profile)
    return result, peak, shares_of(profile.key_averages(group_by_input_shape=True), device)


def shares_of(events: Iterable[Any], device: torch.device) -> dict[str, float]:
    """Share of each kind of work in the time of operators; nothing if none took time.

    Args:
        events: Of a profile, grouped by the shapes of the inputs.
        device: CUDA counts the time of the kernels that an operator starts, the CPU its own.
    """
    times = dict.fromkeys(KINDS, 0.0)
    for event in events:
        if event.device_type != DeviceType.CPU or event.key.startswith('[memory]'):
            continue  # a kernel by itself: the operator that started it has its time
        own = event.self_cpu_time_total
        if device.type == 'cuda':
            own = getattr(event, 'self_device_time_total', None)
            if own is None:  # its name before torch 2.5
                own = event.self_cuda_time_total
        times[kind_of(event.key, event.input_shapes)] += own
    total = sum(times.values())
    return {kind: time / total for kind, time in times.items()} if total else {}


def kind_of(name: str, shapes: Iterable[object] = ()) -> str:
    """The kind of an operator.

    Args:
        name: Its name, with its namespace.
        shapes: Of its inputs; a convolution whose kernels see one channel each is depthwise.
    """
    if name.startswith('autograd::') or name.endswith('Backward0'):
        return OTHER  # the engine's own time: what it runs has names of its own
    bare = name.rpartition('::')[2]
    for kind, pattern in _RULES:
        if pattern.search(bare):
            return OPERATOR if kind == PRODUCTS and _depthwise(bare, shapes) else kind
    return OTHER


def _depthwise(name: str, shapes: Iterable[object]) -> bool:
    """Whether a convolution's weight ``[C, 1, ...]`` has one channel; it follows its map."""
    maps = [shape for shape in shapes if isinstance(shape, (list, tuple)) and len(shape) == 4]
    place = 2 if 'backward' in name else 1
    return 'conv' in name and len(maps) > place and maps[place][1] == 1 and maps[place][0] > 1
