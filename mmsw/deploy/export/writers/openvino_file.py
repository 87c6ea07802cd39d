"""Programs as OpenVINO models: an ``.xml`` with the graph, a ``.bin`` with the weights."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..metadata import KEY, ExportMetadata

if TYPE_CHECKING:
    from onnx import ModelProto


def write_openvino(
    model: ModelProto, path: Path, metadata: ExportMetadata, half_weights: bool
) -> None:
    """Write an ONNX model as an OpenVINO one, both files or neither.

    Args:
        model: The model.
        path: Name of the ``.xml``; the ``.bin`` goes beside it.
        metadata: Stored in the ``.xml``.
        half_weights: Store weights in float16. They are widened where the CPU runs the model.
    """
    import openvino

    network = openvino.Core().read_model(model.SerializeToString())
    network.set_rt_info(metadata.to_text(), KEY)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as folder:
        written = Path(folder, path.name)
        openvino.save_model(network, written, compress_to_fp16=half_weights)
        path.unlink(missing_ok=True)  # it is never there with the weights of another model
        os.replace(written.with_suffix('.bin'), path.with_suffix('.bin'))
        os.replace(written, path)
