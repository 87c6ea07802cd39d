"""onnxruntime and OpenVINO, which run an ONNX model in a benchmark; both are optional.

Each runs with as many threads as torch has, on the memory of torch's tensors: nothing is copied but
what the runtime copies by itself.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmsw.deploy.export.openvino_core import openvino_core

Infer = Callable[[], None]


class Runtime(NamedTuple):
    """How to run an ONNX model.

    Attributes:
        start: From a model, its only input and its outputs, float32 on the CPU and contiguous:
            what fills the outputs at each call.
        packages: What it needs.
    """

    start: Callable[[bytes, Tensor, Sequence[Tensor]], Infer]
    packages: Sequence[str]


def missing(packages: Sequence[str]) -> str:
    """What is to be installed for some packages, in words; ``''`` if they are there."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    return f'not installed; for its rows, pip install {" ".join(absent)}' if absent else ''


def _start_onnxruntime(model: bytes, x: Tensor, outputs: Sequence[Tensor]) -> Infer:
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # its threads would wait at full speed while the next contender is timed
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    binding = session.io_binding()
    kind = ('cpu', 0, numpy.float32)
    (source,) = session.get_inputs()
    binding.bind_input(source.name, *kind, list(x.shape), x.data_ptr())
    for found, out in zip(session.get_outputs(), outputs, strict=True):
        binding.bind_output(found.name, *kind, list(out.shape), out.data_ptr())
    return lambda: session.run_with_iobinding(binding)


def _start_openvino(model: bytes, x: Tensor, outputs: Sequence[Tensor]) -> Infer:
    import openvino

    core = openvino_core()
    options = {
        'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        'NUM_STREAMS': 1,
        'INFERENCE_PRECISION_HINT': 'f32',
    }
    request = core.compile_model(core.read_model(model), 'CPU', options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))
    for index, out in enumerate(outputs):
        request.set_output_tensor(index, openvino.Tensor(out.numpy(), shared_memory=True))
    return request.infer


RUNTIMES = {
    'onnxruntime': Runtime(_start_onnxruntime, ('onnx', 'onnxruntime')),
    'OpenVINO': Runtime(_start_openvino, ('onnx', 'openvino')),
}
