"""Programs as ``.pt2`` files of ``torch.export``, which PyTorch alone runs."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch.export import ExportedProgram

from mmsw.whole_file import write_whole

from ..metadata import EXTRA_FILE, ExportMetadata


def write_torch(graph: ExportedProgram, path: Path, metadata: ExportMetadata) -> None:
    """Write a ``.pt2`` file.

    Args:
        graph: In operators of PyTorch.
        path: Of the file.
        metadata: Stored as an extra file.
    """
    graph.example_inputs = None  # random numbers, as large as an image
    content = io.BytesIO()  # where the disk is full, what writes files in torch ends the process
    torch.export.save(graph, content, extra_files={EXTRA_FILE: metadata.to_text()})
    write_whole(path, lambda file: file.write_bytes(content.getbuffer()))
