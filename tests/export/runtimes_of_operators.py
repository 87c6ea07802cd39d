"""Small graphs in ONNX, and the runtimes that tests compare."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Collection
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmsw.deploy.export.onnx_translations import detector_translations
from mmsw.deploy.export.openvino_core import openvino_core


def exported(
    module: nn.Module, example: tuple[Tensor, ...], sizes: Any, operators: Collection[str]
) -> bytes:
    """An ONNX model in the standard domain that has some operators."""
    for package in ('onnx', 'onnxscript'):
        pytest.importorskip(package, reason=f'onnx: {package} is not installed')
    import onnx

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            module.eval(),
            example,
            file,
            dynamo=True,
            verbose=False,
            dynamic_shapes=sizes,
            custom_translation_table=detector_translations(),
        )
    graph = onnx.load_from_string(file.getvalue()).graph
    assert {node.domain for node in graph.node} == {''}
    assert set(operators) <= {node.op_type for node in graph.node}
    return file.getvalue()


def by_onnxruntime(model: bytes, *inputs: Tensor) -> list[Tensor]:
    runtime = pytest.importorskip('onnxruntime', reason='onnx: onnxruntime is not installed')
    session = runtime.InferenceSession(model, providers=['CPUExecutionProvider'])
    names = [value.name for value in session.get_inputs()]
    feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, feeds)]


def by_openvino(model: bytes, *inputs: Tensor) -> list[Tensor]:
    pytest.importorskip('openvino', reason='runtimes: openvino is not installed')
    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(model), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}
    )
    found = compiled([value.numpy() for value in inputs])
    return [torch.from_numpy(found[output].copy()) for output in compiled.outputs]


RUNTIMES: dict[str, Callable[..., list[Tensor]]] = {
    'onnxruntime': by_onnxruntime,
    'openvino': by_openvino,
}
