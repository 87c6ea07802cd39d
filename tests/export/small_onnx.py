"""Small ONNX models that are written by hand, for what works on graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from mmsw.deploy.export.image_rule import ImageRule
from mmsw.deploy.export.metadata import KEY, ExportMetadata

METADATA = ExportMetadata(
    task='segmentation',
    classes=('sky', 'sea'),
    palette=((1, 2, 3), (4, 5, 6)),
    image=ImageRule(channels=3),
    settings={'mode': 'whole'},
    outputs=('logits',),
)


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
) -> onnx.ModelProto:
    """A checked model; nodes get names by their outputs."""
    for node in nodes:
        node.name = node.name or f'node_{node.output[0]}'
    graph = helper.make_graph(
        nodes,
        'small',
        [
            helper.make_tensor_value_info(key, TensorProto.FLOAT, size)
            for key, size in inputs.items()
        ],
        [
            helper.make_tensor_value_info(key, TensorProto.FLOAT, size)
            for key, size in outputs.items()
        ],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto | Path, **inputs: np.ndarray) -> list[np.ndarray]:
    """Outputs of a model in onnxruntime."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=['CPUExecutionProvider'])
    return session.run(None, inputs)


def kinds(model: onnx.ModelProto) -> list[str]:
    """Operators, in order."""
    return [node.op_type for node in model.graph.node]


def small_network(generator: np.random.Generator) -> onnx.ModelProto:
    """A network as a folded one is: layers, a depthwise one, two products with a response norm.

    Half of the weights of its layers are zero. It takes ``[B, 3, H, W]`` and gives ``logits``.
    """

    def weight(*shape: int) -> np.ndarray:
        found = generator.standard_normal(shape).astype(np.float32)
        return found * (generator.random(shape) < 0.5)

    node = helper.make_node
    nodes = [
        node('Conv', ['image', 'stem.weight', 'stem.bias'], ['stem'], pads=[1] * 4),
        node('Relu', ['stem'], ['map']),
        node('Conv', ['map', 'arm'], ['arms'], group=6, pads=[2, 0, 2, 0]),
        node('Conv', ['arms', 'middle.weight', 'middle.bias'], ['middle']),
        node('Shape', ['middle'], ['size']),
        node('Reshape', ['middle', 'flat'], ['z']),
        node('Shape', ['z'], ['batch'], start=0, end=1),
        node('Concat', ['batch', 'ones'], ['repeats'], axis=0),
        node('Expand', ['expand_weight', 'repeats'], ['expand']),
        node('MatMul', ['expand', 'z'], ['hidden']),
        node('Relu', ['hidden'], ['h']),
        node('ReduceL2', ['h', 'last_axis'], ['norm'], keepdims=1),
        node('Transpose', ['norm'], ['factor'], perm=[0, 2, 1]),
        node('Mul', ['reduce_weight', 'factor'], ['reduce']),
        node('MatMul', ['reduce', 'h'], ['product']),
        node('Add', ['product', 'z'], ['sum']),
        node('Reshape', ['sum', 'size'], ['out']),
        node('Conv', ['out', 'head.weight', 'head.bias'], ['logits']),
    ]
    constants = {
        'stem.weight': weight(6, 3, 3, 3),
        'stem.bias': weight(6),
        'arm': weight(6, 1, 5, 1),
        'middle.weight': weight(6, 6, 1, 1),
        'middle.bias': weight(6),
        'expand_weight': weight(24, 6),
        'reduce_weight': weight(6, 24) / 24,
        'head.weight': weight(2, 6, 1, 1),
        'head.bias': weight(2),
        'flat': np.array([0, 6, -1]),
        'ones': np.array([1, 1]),
        'last_axis': np.array([2]),
    }
    model = model_of(
        nodes, constants, {'image': ['B', 3, 'H', 'W']}, {'logits': ['B', 2, 'H', 'W']}
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, METADATA.to_text()
    return model
