"""What OpenVINO computes faster in another form than the ONNX model has.

A layer norm over the channels of a map stands between two transpositions. onnxruntime is faster
with these than with means over the channels, and OpenVINO is faster with the means, which are
written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Channels of [B, C, P] and [B, C, H, W] to the end, and back.
_CHANNELS = (([0, 2, 1], [0, 2, 1]), ([0, 2, 3, 1], [0, 3, 1, 2]))


class _Framed(NamedTuple):
    """A node between two transpositions that nobody else needs."""

    before: NodeProto
    node: NodeProto
    after: NodeProto


def without_transpositions(model: ModelProto) -> None:
    """Rewrite the norms over the channels of a model, in place.

    Args:
        model: An ONNX model whose weights are initializers; its results stay, up to rounding.
    """
    for there, back in _CHANNELS:
        for framed in list(_framed(model, 'LayerNormalization', there, back)):
            _write_out_norm(model, framed, len(there) - 2)
    read = {name for node in model.graph.node for name in node.input}
    unread = [tensor for tensor in model.graph.initializer if tensor.name not in read]
    for tensor in unread:
        model.graph.initializer.remove(tensor)


def _framed(model: ModelProto, kind: str, there: list[int], back: list[int]) -> Iterator[_Framed]:
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {name: [] for name in makers}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type == kind:
            before, behind = makers.get(node.input[0]), readers[node.output[0]]
            alone = len(behind) == 1 and len(readers[node.input[0]]) == 1
            if alone and _transposes(before, there) and _transposes(behind[0], back):
                yield _Framed(before, node, behind[0])


def _transposes(node: NodeProto | None, order: list[int]) -> bool:
    return (
        node is not None and node.op_type == 'Transpose' and list(node.attribute[0].ints) == order
    )


def _write_out_norm(model: ModelProto, framed: _Framed, sides: int) -> None:
    """A layer norm by means over the channels of a map with so many sides."""
    from onnx import TensorProto, helper, numpy_helper

    before, norm, after = framed
    (epsilon,) = (item.f for item in norm.attribute if item.name == 'epsilon')
    weights = {item.name: item for item in model.graph.initializer}
    if any(weights[name].data_type != TensorProto.FLOAT for name in norm.input[1:]):
        return  # a layer norm computes in float32, and means would not
    x, out = before.input[0], after.output[0]
    constants = {'axis': np.array([1]), 'epsilon': np.array(epsilon, np.float32)}
    for name, source in zip(('scale', 'bias'), norm.input[1:], strict=False):
        constants[name] = numpy_helper.to_array(weights[source]).reshape(-1, *[1] * sides)
    steps = [
        ('ReduceMean', x, 'axis', 'mean'),
        ('Sub', x, 'mean', 'centred'),
        ('Mul', 'centred', 'centred', 'squared'),
        ('ReduceMean', 'squared', 'axis', 'variance'),
        ('Add', 'variance', 'epsilon', 'positive'),
        ('Sqrt', 'positive', None, 'deviation'),
        ('Div', 'centred', 'deviation', 'normal'),
        ('Mul', 'normal', 'scale', 'scaled'),
        *([('Add', 'scaled', 'bias', 'shifted')] if 'bias' in constants else []),
    ]
    names = [*(name for *_, name in steps), *constants]
    own = {name: f'{out}/norm/{name}' for name in names}  # not out_scale, as quantisation has
    own[steps[-1][-1]] = out
    nodes = [
        helper.make_node(kind, [own.get(name, name) for name in read if name], [own[result]])
        for kind, *read, result in steps
    ]
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, own[name]))
    place = list(model.graph.node).index(norm)
    del model.graph.node[place]
    for node in reversed(nodes):
        model.graph.node.insert(place, node)
    model.graph.node.remove(before)
    model.graph.node.remove(after)
