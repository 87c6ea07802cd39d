"""Products of a constant weight with a map, as convolutions of one tap.

A block is channel-major: its products are ``weight [M, K] @ map [B, K, P]``, where the weight comes
first. onnxruntime computes a product in int8 where the constant comes second, and a convolution
with one scale for each of its filters. The same product as a convolution over the positions has
``M`` filters. A factor for each sample, which the second product of a block carries in its weight,
goes to the map, so that the weight is constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .onnx_graph import OnnxGraph, read_by

if TYPE_CHECKING:
    import onnx

_PASSED = ('Expand', 'Unsqueeze', 'Identity')  # what repeats a weight for each sample


class _Factors(NamedTuple):
    """The first side of a product.

    Attributes:
        weight: Name of a constant, ``[M, K]`` or ``[1, M, K]``.
        factor: Name of a tensor ``[B, 1, K]`` that the weight is multiplied by; None without one.
    """

    weight: str
    factor: str | None


def products_as_convolutions(model: onnx.ModelProto) -> int:
    """Replace the products of a constant weight with a map, in place; results stay, up to rounding.

    Args:
        model: A model in float32.

    Returns:
        How many were replaced.
    """
    graph = OnnxGraph(model)
    nodes, replaced = [], 0
    for node in model.graph.node:
        factors = _factors(graph, node) if node.op_type == 'MatMul' else None
        if factors is None:
            nodes.append(node)
        else:
            nodes += _convolution(model, graph, node, factors)
            replaced += 1
    if replaced:
        _set_nodes(model, nodes)
    return replaced


def _factors(graph: OnnxGraph, product: onnx.NodeProto) -> _Factors | None:
    """What the first side of a product is made of; None where it is no constant weight."""
    first, second = product.input
    if len(graph.shapes.get(second, ())) != 3 or second in graph.constants:
        return None
    if (weight := _weight(graph, first)) is not None:
        return _Factors(weight, None)
    scaling = _made_by(graph, first)
    if scaling is None or scaling.op_type != 'Mul':
        return None
    for one, other in (scaling.input, reversed(scaling.input)):
        weight, shape = _weight(graph, one), graph.shapes.get(other, ())
        if weight is not None and len(shape) == 3 and shape[1] == 1:
            return _Factors(weight, other)
    return None


def _made_by(graph: OnnxGraph, name: str) -> onnx.NodeProto | None:
    """The node that makes a tensor, behind what only repeats it."""
    node = graph.producers.get(name)
    while node is not None and node.op_type in _PASSED and node.input[0] in graph.producers:
        node = graph.producers[node.input[0]]
    return node


def _weight(graph: OnnxGraph, name: str) -> str | None:
    """The constant matrix that a tensor is, maybe repeated for each sample."""
    node = graph.producers.get(name)
    while node is not None and node.op_type in _PASSED:
        name = node.input[0]
        node = graph.producers.get(name)
    shape = graph.shapes.get(name, ())
    is_matrix = len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)
    return name if is_matrix and graph.is_float(name) else None


def _convolution(
    model: onnx.ModelProto, graph: OnnxGraph, product: onnx.NodeProto, factors: _Factors
) -> list[onnx.NodeProto]:
    """The nodes that stand for a product."""
    from onnx import helper

    nodes, source, result = [], product.input[1], product.output[0]
    if factors.factor is not None:
        column, scaled = f'{result}_factor', f'{result}_scaled'
        turn = helper.make_node('Transpose', [factors.factor], [column], perm=[0, 2, 1])
        nodes += [turn, helper.make_node('Mul', [source, column], [scaled])]
        source = scaled
    taps = _taps(model, graph, factors.weight)
    conv = helper.make_node('Conv', [source, taps], [result], kernel_shape=[1])
    for number, node in enumerate((*nodes, conv)):
        node.name = product.name if node is conv else f'{product.name}_{number}'
        node.metadata_props.extend(product.metadata_props)
    return [*nodes, conv]


def _taps(model: onnx.ModelProto, graph: OnnxGraph, weight: str) -> str:
    """Name of a constant ``[M, K, 1]`` with the numbers of a weight; it is added once."""
    import onnx.numpy_helper

    name = f'{weight}_taps'
    if name not in graph.constants:
        array = graph.array(weight)
        tensor = onnx.numpy_helper.from_array(array.reshape(*array.shape[-2:], 1), name)
        model.graph.initializer.append(tensor)
        graph.constants[name] = tensor
    return name


def _set_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Give a model other nodes, and take from it those and the constants that nothing reads."""
    outputs = {value.name for value in model.graph.output}
    kept, read = [], set(outputs)
    for node in reversed(nodes):
        if read.intersection(node.output):
            read.update(read_by(node))
            kept.append(type(node).FromString(node.SerializeToString()))
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    constants = [type(tensor).FromString(tensor.SerializeToString()) for tensor in constants]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(constants)
