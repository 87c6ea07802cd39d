"""Programs as ``.pt2`` files of ``torch.export``, which need nothing but torch where they run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram

from mmsw.whole_file import write_whole

from ..metadata import EXTRA_FILE, ExportMetadata


def write_torch(graph: ExportedProgram, path: Path, metadata: ExportMetadata) -> None:
    """Write a graph, whole or not at all."""
    extra = {EXTRA_FILE: metadata.to_text()}
    write_whole(path, lambda temporary: torch.export.save(graph, temporary, extra_files=extra))
