"""Writing a program to a file of some format, in some precision."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from mmsw.whole_file import write_whole

from ..capture import capture, open_axes
from ..formats import FORMATS, check_packages
from ..metadata import ExportMetadata
from ..precisions import TYPES, check_form, check_range
from ..program import Program
from .onnx_file import onnx_model
from .openvino_file import write_openvino
from .torch_file import write_torch


def write_program(
    program: Program,
    path: str | os.PathLike[str],
    *,
    format: str,
    example: Tensor,
    dynamic: bool,
    precision: str = 'float32',
    metadata: ExportMetadata,
) -> None:
    """Write a program to a file, whole or not at all.

    Args:
        program: The program, which stays as it is.
        path: The file. ``'openvino'`` puts a ``.bin`` beside it.
        format: A name of :data:`~mmsw.deploy.export.formats.FORMATS`.
        example: Images ``[B, C, H, W]`` float32 to trace it with. Their size is that of the file if
            it has one.
        dynamic: Whether the file takes images of any size, and if the program does, any number.
        precision: ``'float32'``, ``'float16'`` or ``'bfloat16'``. Inputs and outputs are float32.
        metadata: Stored in the file.

    Raises:
        UsageError: If there is no such format or precision, the format does not run in this
            precision, a package is missing, or the program has no form in the format.
    """
    check_form(format, precision, TYPES)
    check_packages(FORMATS[format].writes, f'format {format}')
    check_range(chain(program.parameters(), program.buffers()), precision, program.description)
    path = Path(path)
    # OpenVINO widens weights of float16 as it reads them; the graph is the one of float32.
    half_weights = format == 'openvino' and precision == 'float16'
    dtype = torch.float32 if half_weights else TYPES[precision]
    form = program.for_format(format).in_precision(dtype).eval()
    graph = capture(form, example, dynamic, plain=format != 'torch')
    if format == 'torch':
        write_torch(graph, path, metadata)
        return
    model = onnx_model(graph, form, open_axes(program, dynamic), metadata)
    if format == 'openvino':
        write_openvino(model, path, metadata, half_weights)
    else:
        write_whole(path, lambda temporary: temporary.write_bytes(model.SerializeToString()))
