"""Time per image of an exported file beside the folded model in PyTorch, taken in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

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
    runs = [_run(model, image) for model in (exported, folded)]
    seconds: tuple[list[float], list[float]] = ([], [])
    with _threads(threads):
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
    sizes = [
        tuple(prepare_image(model, image).packed['inputs'].shape[1:])
        for model in (exported, folded)
    ]
    sizes[0] = exported.metadata.size or sizes[0]
    return Timing(*sizes, *map(statistics.median, seconds), len(seconds[0]), used)


def _run(model: nn.Module, image: Image) -> Callable[[], object]:
    def run() -> None:
        predict_prepared(model, [prepared])

    prepared = prepare_image(model, image)
    return run


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
