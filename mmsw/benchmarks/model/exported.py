"""Exported forms of a network as they come, each for images of one size."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..onnx_runtimes import RUNTIMES, Runtime

Maps = Sequence[Tensor]
Start = Callable[[nn.Module, Tensor], Callable[[], Maps]]


def start_program(network: nn.Module, images: Tensor) -> Callable[[], Maps]:
    """A program of ``torch.export``, run eagerly: operators of torch alone."""
    return partial(torch.export.export(network, (images,)).module(), images)


def start_compiled(network: nn.Module, images: Tensor) -> Callable[[], Maps]:
    """What ``torch.compile`` makes with its own settings, for this size; it compiles here."""
    run = partial(torch.compile(network, dynamic=False), images)
    run()
    return run


def start_runtime(runtime: Runtime, network: nn.Module, images: Tensor) -> Callable[[], Maps]:
    """The ONNX model that torch exports, in another runtime."""
    if images.device.type != 'cpu' or images.dtype != torch.float32:
        raise ValueError(f'runs float32 on the CPU, got {images.dtype} on {images.device}')
    images = images.contiguous()
    outputs = tuple(torch.empty_like(map_) for map_ in network(images))
    file = io.BytesIO()
    torch.onnx.export(network, (images,), file, dynamo=True, verbose=False)
    infer = runtime.start(file.getvalue(), images, outputs)

    def run(images: Tensor = images) -> Maps:  # keeps them: the runtime reads their memory
        infer()
        return outputs

    return run


# By name: how a form starts, and the packages that it needs.
EXPORTED: dict[str, tuple[Start, Sequence[str]]] = {
    'torch.export': (start_program, ()),
    'torch.compile': (start_compiled, ()),
    **{
        name: (partial(start_runtime, runtime), (*runtime.packages, 'onnxscript'))
        for name, runtime in RUNTIMES.items()
    },
}
