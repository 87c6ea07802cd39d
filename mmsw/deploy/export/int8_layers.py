"""Which layers of an ONNX model compute in int8, and which stay in float32, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmsw.errors import UsageError

if TYPE_CHECKING:
    import onnx

KINDS = ('Conv', 'Gemm', 'MatMul')
# Behind these a number only chooses something: places of the best scores, classes, levels.
_CHOOSING = (
    *('TopK', 'NonMaxSuppression', 'NonZero', 'ArgMax', 'Cast'),
    *('Equal', 'Less', 'LessOrEqual', 'Greater', 'GreaterOrEqual'),
)
# Their further inputs say where, not what: boxes, places, sizes.
_BY_FIRST = (
    *('RoiAlign', 'Gather', 'GatherND', 'GatherElements'),
    *('Reshape', 'Expand', 'Slice', 'Tile', 'Resize', 'Pad'),
)
_ATTENTION = re.compile(r'\b(squeeze|excite)\.weight$')  # of a folded block


@dataclass(frozen=True)
class Layer:
    """A node with a constant weight of float32.

    Attributes:
        node: The node.
        weight: Name of the weight.
        reason: Why it stays in float32; empty if it does not.
    """

    node: onnx.NodeProto
    weight: str
    reason: str


def layers_of(model: onnx.ModelProto, keep_float: str | None = None) -> list[Layer]:
    """The layers of a model, in order.

    These stay in float32: depthwise convolutions (and others in groups), which are slower in int8
    and hold few numbers; the first layer; the last ones, whose outputs are scores, corners of
    boxes, classes or masks; the channel attention, a few numbers for each image.

    Args:
        model: The model; the names of its weights are those of the network where it has them.
        keep_float: Regular expression; layers in the name of whose weight it is found stay as well.

    Raises:
        UsageError: If it is no regular expression, or is found in no name.
    """
    nodes, weights = list(model.graph.node), _float_constants(model)
    layers = [node for node in nodes if node.op_type in KINDS and node.input[1] in weights]
    named = _named([node.input[1] for node in layers], keep_float)
    first, last = _first(nodes, layers), _last(nodes, layers)
    return [
        Layer(node, node.input[1], next(_reasons(node, named, first, last), '')) for node in layers
    ]


def _float_constants(model: onnx.ModelProto) -> set[str]:
    from onnx import TensorProto

    return {item.name for item in model.graph.initializer if item.data_type == TensorProto.FLOAT}


def _reasons(
    node: onnx.NodeProto, named: set[str], first: set[int], last: set[int]
) -> Iterator[str]:
    weight = node.input[1]
    if weight in named:
        yield 'named'
    if any(item.name == 'group' and item.i > 1 for item in node.attribute):
        yield 'depthwise'
    if id(node) in first:
        yield 'first'
    if id(node) in last:
        yield 'last'
    if _ATTENTION.search(weight):
        yield 'channel attention'


def _named(weights: list[str], pattern: str | None) -> set[str]:
    if pattern is None:
        return set()
    try:
        found = {name for name in weights if re.search(pattern, name)}
    except re.error as error:
        raise UsageError(f'keep_float={pattern!r} is no regular expression: {error}') from error
    if not found:
        raise UsageError(
            f'keep_float={pattern!r} is found in the name of no weight; there are '
            f'{", ".join(weights[:3])} and {max(len(weights) - 3, 0)} more'
        )
    return found


def _first(nodes: list[onnx.NodeProto], layers: list[onnx.NodeProto]) -> set[int]:
    """Layers that no other one comes before."""
    weighted, behind, found = {id(node) for node in layers}, set(), set()
    for node in nodes:
        is_behind = not behind.isdisjoint(node.input)
        if id(node) in weighted and not is_behind:
            found.add(id(node))
        if is_behind or id(node) in weighted:
            behind.update(node.output)
    return found


def _last(nodes: list[onnx.NodeProto], layers: list[onnx.NodeProto]) -> set[int]:
    """Layers whose numbers go into no other one."""
    weighted, ahead, found = {id(node) for node in layers}, set(), set()
    for node in reversed(nodes):
        is_ahead = not ahead.isdisjoint(node.output)
        if id(node) in weighted and not is_ahead:
            found.add(id(node))
        if node.op_type not in _CHOOSING and (is_ahead or id(node) in weighted):
            ahead.update(node.input[:1] if node.op_type in _BY_FIRST else node.input)
    return found
