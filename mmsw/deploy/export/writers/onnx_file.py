"""Programs as ONNX models, in operators of the standard domain alone."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.export import ExportedProgram

from mmsw.errors import UsageError
from mmsw.wording import short

from ..metadata import KEY, ExportMetadata
from ..program import INPUT, Program

if TYPE_CHECKING:
    from onnx import ModelProto

# The first that has GELU as one operator, which runtimes compute in one pass.
OPSET = 20
_LARGEST = 2**31 - 1  # bytes of a model in one file


def onnx_model(
    graph: ExportedProgram,
    program: Program,
    axes: Mapping[int, str],
    metadata: ExportMetadata,
) -> ModelProto:
    """The ONNX model of a graph.

    Args:
        graph: Of the program, see :func:`~mmsw.deploy.export.capture.capture`, plain.
        program: Names the outputs, and operators of its own.
        axes: Axes of the image without a fixed size, and their names.
        metadata: Stored in the model.

    Raises:
        UsageError: If an operator has no form in ONNX, or the model is too large for one file.
    """
    model = _exported(graph, program)
    _forget_origin(model)
    _name_axes(model, axes)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, metadata.to_text()
    if model.ByteSize() > _LARGEST:
        raise UsageError(
            f'the {program.description} takes {model.ByteSize() / 2**30:.1f} GiB: an ONNX file '
            'holds up to 2; export it in float16, or as torch'
        )
    return model


def _exported(graph: ExportedProgram, program: Program) -> ModelProto:
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)  # that torchvision is absent concerns nobody
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            found: Any = torch.onnx.export(
                graph,
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=list(program.outputs),
                opset_version=OPSET,
                custom_translation_table=dict(program.onnx_translations) or None,
            )
    except Exception as error:  # it fails in many ways
        raise UsageError(
            f'the {program.description} cannot be exported to ONNX ({short(_origin(error))})'
        ) from error
    finally:
        logger.setLevel(level)
    return found.model_proto


def _origin(error: BaseException) -> BaseException:
    """The error that the exporter's own ones are about."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _forget_origin(model: ModelProto) -> None:
    """Drop what the exporter notes of source files, and the sizes that it found on the way."""
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        del part.metadata_props[:]
        part.ClearField('doc_string')
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def _name_axes(model: ModelProto, axes: Mapping[int, str]) -> None:
    """Give open axes the same names everywhere."""
    (image,) = model.graph.input
    names = {}
    for axis, dim in enumerate(image.type.tensor_type.shape.dim):
        if axis in axes:
            names[dim.dim_param] = axes[axis]
        is_open = bool(dim.dim_param)
        if is_open != (axis in axes):
            raise RuntimeError(f'axis {axis} of the image should {"not " * is_open}be open')
    for value in (image, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)
