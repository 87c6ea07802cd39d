"""int8: static quantisation of an ONNX model by onnxruntime's own tool.

Weights are symmetric, with one scale for each filter, so that zero stays zero: a pruned weight is
zero in the file, too. Maps have one scale and offset each, from the smallest and largest value that
the images of a calibration give. What lies between the layers, the decoding of boxes, their
suppression and RoIAlign among it, computes in float32.

Weights take 7 of the 8 bits: a processor without VNNI adds two products of 8 bits in 16, which
overflow, and nothing would tell.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsw.errors import DataError, MmswError, UsageError
from mmsw.whole_file import write_whole
from mmsw.wording import short

from .contents import file_bytes
from .formats import check_packages, format_of
from .int8_layers import KINDS, layers_of
from .metadata import KEY, ExportMetadata
from .program import INPUT

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class QuantizationReport:
    """What a quantisation did.

    Attributes:
        quantized: Names of the weights that are int8.
        kept: Names of the weights that stay in float32, with the reason.
        images: How many images the ranges are from.
        bytes_before: Of the file in float32.
        bytes_after: Of the file in int8.
    """

    quantized: tuple[str, ...]
    kept: dict[str, str]
    images: int
    bytes_before: int
    bytes_after: int


def quantize(
    path_in: str | os.PathLike[str],
    path_out: str | os.PathLike[str],
    images: Iterable[np.ndarray],
    *,
    keep_float: str | None = None,
    weight_bits: int = 7,
) -> QuantizationReport:
    """Make an ONNX file in float32 one in int8, for onnxruntime or OpenVINO.

    Args:
        path_in: A ``.onnx`` file of :func:`mmsw.apis.export_model` in float32.
        path_out: File to write; it may be the same one. ``.xml`` stands for an OpenVINO model of
            the same layers, scales and offsets, with a ``.bin`` beside it.
        images: Inputs ``[B, C, H, W]`` float32, as the file takes them; they are read one by one.
        keep_float: Regular expression for weights that stay in float32, beside those that do
            anyway: the depthwise convolutions, the first and last layers, the channel attention.
        weight_bits: 7, or 8 for processors with VNNI and for Arm, where no sum overflows.

    Raises:
        UsageError: If a package is missing, there are no images, or an option is wrong.
        DataError: If the file is not what was expected, or does not take an image.
        OSError: If there is no room for the file.
    """
    out = Path(path_out)
    is_onnx = format_of(out) == 'onnx'
    check_packages(('onnx', 'onnxruntime', *([] if is_onnx else ['openvino'])), 'precision int8')
    if weight_bits not in (7, 8):
        raise UsageError(f'weight_bits must be 7 or 8, got {weight_bits}')
    model = _read(path_in)
    layers = layers_of(model, keep_float)
    counted = _Images(images)
    bytes_before, kept = os.path.getsize(path_in), [layer for layer in layers if layer.reason]

    def write(path: Path) -> None:
        try:
            _quantize(model, path, counted, [layer.node.name for layer in kept], weight_bits)
        except (MmswError, OSError):  # OSError: there is no room
            raise
        except Exception as error:  # the tool fails in its own ways
            raise DataError(
                f'{os.fspath(path_in)} cannot be made int8: it takes no image {counted.shape}, or '
                f'an operator has no such form ({short(error)})'
            ) from error

    if is_onnx:
        write_whole(out, write)
    else:
        with tempfile.TemporaryDirectory() as folder:
            between = Path(folder, 'int8.onnx')
            write(between)
            _as_openvino(between, out)
    names = dict.fromkeys(layer.weight for layer in layers if not layer.reason)
    return QuantizationReport(
        tuple(names),
        {layer.weight: layer.reason for layer in kept},
        counted.number,
        bytes_before,
        file_bytes(out),
    )


class _Images:
    """Images as onnxruntime's tool asks for them, counted; ``shape`` is that of the last one."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self._images, self.number = iter(images), 0
        self.shape: list[int] = []

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        if image is None:
            if not self.number:
                raise UsageError('int8 needs images to take the ranges of values from, got none')
            return None
        self.number += 1
        self.shape = list(image.shape)
        return {INPUT: np.ascontiguousarray(image, dtype=np.float32)}


def _read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(os.fspath(path))
    except (OSError, DecodeError) as error:
        raise DataError(f'{os.fspath(path)} cannot be read as an ONNX file: {error}') from error
    if any(node.op_type == 'DequantizeLinear' for node in model.graph.node):
        raise DataError(f'{os.fspath(path)} is in int8 already: give the file in float32')
    return model


def _quantize(
    model: onnx.ModelProto, path: Path, images: _Images, kept: list[str], weight_bits: int
) -> None:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    told = [(entry.key, entry.value) for entry in model.metadata_props]
    add_pre_process_metadata(model)  # else it would ask for what the writer has done
    quantize_static(
        model,
        path,
        images,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(KINDS),
        nodes_to_exclude=[*kept, *_without_weight(model)],
        per_channel=True,
        reduce_range=weight_bits == 7,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={'WeightSymmetric': True},
    )
    found = onnx.load(path)
    del found.metadata_props[:], found.graph.value_info[:]
    for key, value in told:
        entry = found.metadata_props.add()
        entry.key, entry.value = key, _in_int8(value, path) if key == KEY else value
    onnx.save(found, path)


def _without_weight(model: onnx.ModelProto) -> list[str]:
    """Products of two maps, and what has a weight that is computed."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in KINDS and node.input[1] not in constants
    ]


def _as_openvino(file: Path, out: Path) -> None:
    """Write an ONNX file as an OpenVINO model."""
    import onnx

    from .writers.openvino_file import write_openvino

    model = onnx.load(file)
    (told,) = (entry.value for entry in model.metadata_props if entry.key == KEY)
    write_openvino(model, out, ExportMetadata.from_text(told, file), half_weights=False)


def _in_int8(text: str, path: Path) -> str:
    """The metadata of a file, which says that it is in int8."""
    return replace(ExportMetadata.from_text(text, path), precision='int8').to_text()
