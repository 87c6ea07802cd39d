"""What an exported file holds: its size, its operators, its weights and how many are zero."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from .formats import format_of
from .openvino_core import openvino_core


@dataclass(frozen=True)
class FileContents:
    """What a file holds.

    Attributes:
        bytes: Of all its parts.
        operators: How many of each kind, the most first.
        weights: Numbers in its constants of two or more dimensions.
        zeros: Those that are exactly zero.
    """

    bytes: int
    operators: dict[str, int]
    weights: int
    zeros: int


def contents_of(path: str | os.PathLike[str]) -> FileContents:
    """Look into an exported file.

    Args:
        path: A file that ``write_program`` wrote; for OpenVINO the ``.xml``.
    """
    path = Path(path)
    operators, constants = _READERS[format_of(path)](path)
    weights, zeros = count_zeros(constants)
    return FileContents(
        file_bytes(path),
        dict(Counter(operators).most_common()),
        weights,
        zeros,
    )


def file_bytes(path: Path) -> int:
    """Bytes of an exported file; of an OpenVINO model those of both its files."""
    parts = [path, path.with_suffix('.bin')] if format_of(path) == 'openvino' else [path]
    return sum(part.stat().st_size for part in parts)


def count_zeros(arrays: Iterable[np.ndarray | Tensor]) -> tuple[int, int]:
    """Numbers, and zeros among them, in the arrays of two or more dimensions."""
    weights = zeros = 0
    for array in arrays:
        if array.ndim >= 2:
            number = array.numel() if isinstance(array, Tensor) else array.size
            weights += number
            zeros += number - int((array != 0).sum())
    return weights, zeros


def _onnx(path: Path) -> tuple[list[str], Iterator[np.ndarray]]:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    kinds = {
        onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.INT8, onnx.TensorProto.UINT8,
    }  # fmt: skip
    operators: list[str] = []
    constants: list[Any] = []
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        constants += graph.initializer
        for node in graph.node:
            operators.append(f'{node.domain}.{node.op_type}' if node.domain else node.op_type)
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField('g') else []
                if node.op_type == 'Constant' and attribute.HasField('t'):
                    constants.append(attribute.t)
    arrays = (numpy_helper.to_array(item) for item in constants if item.data_type in kinds)
    return operators, arrays


def _openvino(path: Path) -> tuple[list[str], Iterator[np.ndarray]]:
    model = openvino_core().read_model(path)
    nodes = model.get_ops()
    ends = ('Parameter', 'Result', 'Constant')
    operators = [node.get_type_name() for node in nodes if node.get_type_name() not in ends]
    kinds = ('f32', 'f16', 'bf16', 'i8', 'u8')
    constants = (
        np.asarray(node.get_data())
        for node in nodes
        if node.get_type_name() == 'Constant' and node.get_element_type().get_type_name() in kinds
    )
    return operators, constants


def _torch(path: Path) -> tuple[list[str], Iterator[Tensor]]:
    program = torch.export.load(path)
    targets = [node.target for node in program.graph.nodes if node.op == 'call_function']
    operators = [
        str(target)
        for target in targets  # without arithmetic on sizes, and without assertions
        if isinstance(target, OpOverload) and not re.search('sym_|_assert', target.name())
    ]
    tensors = [*program.state_dict.values(), *program.constants.values()]
    return operators, (
        item for item in tensors if isinstance(item, Tensor) and item.is_floating_point()
    )


_READERS = {'onnx': _onnx, 'openvino': _openvino, 'torch': _torch}
