"""An ONNX graph by its names: who makes a tensor, what is constant, how large it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | None, ...]


class OnnxGraph:
    """Look-ups in the graph of a model; they hold for the graph as it was when this was made.

    Args:
        model: The model; its shapes are inferred here, it is not changed.

    Attributes:
        nodes: All nodes, in their order.
        constants: Initializers, by name.
        producers: The node that makes a tensor, by the name of the tensor.
        shapes: Of the tensors, by name; ``None`` stands for a size that is not fixed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx

        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.shapes: dict[str, Shape] = {
            value.name: tuple(
                size.dim_value if size.HasField('dim_value') else None
                for size in value.type.tensor_type.shape.dim
            )
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
            if value.type.tensor_type.HasField('shape')
        }
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.constants.items()}

    def is_float(self, name: str) -> bool:
        """Whether a tensor is a constant of float32."""
        import onnx

        tensor = self.constants.get(name)
        return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT

    def array(self, name: str) -> np.ndarray:
        """The numbers of a constant."""
        import onnx.numpy_helper

        return onnx.numpy_helper.to_array(self.constants[name])


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, those of the graphs inside of it among them."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField('g') else [])):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from read_by(inner)
