"""Time per image of an exported file beside the folded model in PyTorch, taken in turns."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mmsw.threads import use_threads

from ..image_way import prepare_image
from ..images import Image
from ..inference import predict_prepared
from .exported_model import ExportedModel

_LEAST_ROUNDS, _MOST_ROUNDS = 3, 15
_SECONDS = 6.0


@dataclass(frozen=True)
class Timing:
    """Medians of runs that took turns.

    Attributes:
        size: Height and width of the prepared image, with the border of a file for one size.
        torch_size: Height and width of the image as PyTorch takes it.
        seconds: Of the file, from the prepared image to its result.
        torch_seconds: Of the folded model, likewise.
        rounds: Runs of each.
        threads: That computed.
    """

    size: tuple[int, int]
    torch_size: tuple[int, int]
    seconds: float
    torch_seconds: float
    rounds: int
    threads: int

    @property
    def ratio(self) -> float:
        """Time of the file as a share of that of PyTorch."""
        return self.seconds / self.torch_seconds


def time_beside(
    exported: ExportedModel, folded: nn.Module, image: Image, threads: int | None = None
) -> Timing:
    """Time both on an image.

    Args:
        exported: The file.
        folded: The model in PyTorch.
        image: Path, or array.
        threads: That compute; those that ``exported`` was opened with.
    """
    models = (exported, folded)
    prepared = [prepare_image(model, image) for model in models]
    runs = [
        partial(predict_prepared, model, [item])
        for model, item in zip(models, prepared, strict=True)
    ]
    seconds: tuple[list[float], list[float]] = ([], [])
    with use_threads(threads):
        for run in runs:
            run()  # fills what is made at the first run
        end = time.perf_counter() + _SECONDS
        while len(seconds[0]) < _LEAST_ROUNDS or (
            len(seconds[0]) < _MOST_ROUNDS and time.perf_counter() < end
        ):
            for run, found in zip(runs, seconds, strict=True):
                begin = time.perf_counter()
                run()
                found.append(time.perf_counter() - begin)
        used = torch.get_num_threads()
    sizes = [tuple(item.packed['inputs'].shape[1:]) for item in prepared]
    sizes[0] = exported.metadata.size or sizes[0]
    return Timing(*sizes, *map(statistics.median, seconds), len(seconds[0]), used)
