"""A program that is no file yet, where exported files are expected: what a file must give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .metadata import ExportMetadata
from .program import Program
from .runtimes import ExportedProgram


class EagerProgram(ExportedProgram):
    """Runs a program as torch does, operator by operator.

    Args:
        program: The program.
        metadata: What its file will tell.
    """

    def __init__(self, program: Program, metadata: ExportMetadata) -> None:
        super().__init__(f'{type(program).__name__} in torch', metadata)
        self._program = program

    def _outputs(self, image: np.ndarray) -> Sequence[np.ndarray]:
        with torch.no_grad():
            found = self._program(torch.from_numpy(image))
        found = (found,) if isinstance(found, Tensor) else found
        return [part.numpy() for part in found]
