"""Programs as OpenVINO models, made of their ONNX models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmsw.errors import UsageError
from mmsw.whole_file import write_pair
from mmsw.wording import short

from ..metadata import KEY, ExportMetadata
from ..openvino_core import openvino_core
from ..openvino_weights import save_pair
from .openvino_forms import without_transpositions

if TYPE_CHECKING:
    from onnx import ModelProto


def write_openvino(
    model: ModelProto, path: Path, metadata: ExportMetadata, half_weights: bool = False
) -> None:
    """Write an ``.xml`` file with the graph and a ``.bin`` file with the weights, or neither.

    Args:
        model: In ONNX; it is changed to what OpenVINO computes faster.
        path: Of the ``.xml`` file.
        metadata: Stored in the graph's ``rt_info``.
        half_weights: Store weights of float32 as float16; OpenVINO widens them as it reads them.

    Raises:
        UsageError: If OpenVINO has no form of an operator.
    """
    without_transpositions(model)
    try:
        graph = openvino_core().read_model(model.SerializeToString())
    except Exception as error:  # it fails in many ways
        raise UsageError(
            f'the {metadata.model} cannot be exported to OpenVINO ({short(error)})'
        ) from error
    graph.set_rt_info(metadata.to_text(), [KEY])
    write_pair(path.with_suffix('.bin'), path, lambda _, xml: save_pair(graph, xml, half_weights))
