"""Writing programs as files, one module per format."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from mmsw.whole_file import write_whole

from ..capture import capture, open_axes
from ..formats import FORMATS, check_packages, check_precision
from ..metadata import ExportMetadata
from ..program import Program
from .onnx_file import onnx_model
from .openvino_file import write_openvino
from .torch_file import write_torch

_TYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


def write_program(
    program: Program,
    path: str | os.PathLike[str],
    *,
    format: str,
    example: Tensor,
    dynamic: bool,
    metadata: ExportMetadata,
    precision: str = 'float32',
) -> None:
    """Write a program to a file, whole or not at all.

    Args:
        program: In evaluation mode; it is not changed.
        path: The file. OpenVINO writes the weights beside it, in a ``.bin`` file.
        format: ``'onnx'``, ``'openvino'`` or ``'torch'``.
        example: An image ``[B, C, H, W]``; random numbers will do.
        dynamic: Whether height and width stay open, and the batch of a program that takes more
            than one image. Otherwise they are those of the example.
        metadata: Stored in the file.
        precision: ``'float32'``, ``'float16'`` or ``'bfloat16'``: of weights and arithmetic.
            OpenVINO computes in float32 with weights of float16. Images and outputs are float32.

    Raises:
        UsageError: If a package is missing, the format does not run in the precision, or it cannot
            hold the program; names it.
    """
    check_precision(format, precision)
    check_packages(FORMATS[format].writes, f'format {format}')
    path = Path(path)
    half_weights = (format, precision) == ('openvino', 'float16')
    dtype = torch.float32 if half_weights else _TYPES[precision]
    program = program.for_format(format).in_precision(dtype)
    graph = capture(program, example, dynamic)
    if format == 'torch':
        write_torch(graph, path, metadata)
        return
    model = onnx_model(graph, program, open_axes(program, dynamic), metadata)
    if format == 'onnx':
        write_whole(path, lambda file: file.write_bytes(model.SerializeToString()))
    else:
        write_openvino(model, path, metadata, half_weights)


__all__ = ['write_program']
