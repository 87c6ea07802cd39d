"""The two files of an OpenVINO model: the graph tells which weights it was written with."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmsw.errors import DataError

if TYPE_CHECKING:
    import openvino

_KEY = 'mmsw_weights'  # in the graph's ``rt_info``
_UNKNOWN = 'to be filled in when the weights are written'
_AT_ONCE = 2**20  # bytes


def save_pair(graph: openvino.Model, path: Path, half_weights: bool) -> None:
    """Write an ``.xml`` file with the digest of the ``.bin`` file that is written beside it.

    Args:
        graph: The model.
        path: Of the ``.xml`` file.
        half_weights: Store weights of float32 as float16.

    Raises:
        OSError: If there is no room for them.
    """
    import openvino

    graph.set_rt_info(_UNKNOWN, [_KEY])
    try:
        openvino.save_model(graph, path, compress_to_fp16=half_weights)
    except RuntimeError as error:
        raise OSError(f'OpenVINO cannot write a file: {error}') from error
    digest = _digest(path.with_suffix('.bin'))
    path.write_bytes(path.read_bytes().replace(_UNKNOWN.encode(), digest.encode(), 1))


def check_pair(graph: openvino.Model, path: str | os.PathLike[str]) -> None:
    """Check that the ``.bin`` file beside an ``.xml`` file was written with it.

    OpenVINO reads any that is large enough, and gives results of mixed models.

    Args:
        graph: What was read.
        path: Of the ``.xml`` file.

    Raises:
        DataError: If it is of another model.
    """
    if not graph.has_rt_info([_KEY]):
        return  # written by another program, or by mmsw before there were digests
    weights = Path(path).with_suffix('.bin')
    if graph.get_rt_info([_KEY]).astype(str) != _digest(weights):
        raise DataError(
            f'{weights} holds other weights than {os.fspath(path)} was written with: an OpenVINO '
            'model is both files, so copy and rename them together, or export again with '
            'tools/export.py'
        )


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with open(path, 'rb') as file:
        while part := file.read(_AT_ONCE):
            found.update(part)
    return found.hexdigest()
