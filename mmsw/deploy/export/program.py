"""A network as a program: tensors in, tensors out, and what a runtime must know to finish."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

INPUT = 'image'  # the name of a program's input in a file


class Program(nn.Module):
    """A network as a graph that a file can hold: no Python objects go in or come out.

    Subclasses set the attributes and write :meth:`forward`. The model that a program was made of
    stays as it was.

    Attributes:
        task: ``'segmentation'`` or ``'detection'``.
        outputs: Names of what :meth:`forward` gives, in order.
        batched: Whether it takes more than one image at once.
        settings: What a runtime must know to make results of the outputs; JSON can hold it.
        smallest: Least height and width.
        onnx_translations: ONNX functions for operators that PyTorch's exporter does not know, by
            operator; as ``custom_translation_table`` of ``torch.onnx.export``.
    """

    task: str
    outputs: tuple[str, ...]
    batched: bool = True
    settings: dict[str, Any]
    smallest: int = 1
    onnx_translations: ClassVar[dict[Any, Any]] = {}

    @property
    def description(self) -> str:
        """What it is a program of, for messages."""
        return type(self).__name__

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the network.

        Args:
            image: ``[B, C, H, W]`` float32: resized, in the model's order of channels, normalised
                by its mean and standard deviation, not padded.

        Returns:
            A tensor for each name in ``outputs``; numbers with a fraction are float32.
        """

    def for_format(self, format: str) -> Program:
        """The form of this program that a format can hold: ``'onnx'``, ``'openvino'``, ``'torch'``.

        The same results by other operators, where a format needs them.
        """
        return self

    def in_precision(self, dtype: torch.dtype) -> Program:
        """A copy that computes in a type; float32 goes in and comes out as before.

        A program whose last steps need float32 has its own form of this.
        """
        return self if dtype is torch.float32 else _Reduced(self, dtype)


class _Reduced(Program):
    """A copy of a program that computes everything in one type of less precision."""

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        super().__init__()
        self.task, self.outputs, self.batched = program.task, program.outputs, program.batched
        self.settings, self.smallest = program.settings, program.smallest
        self.onnx_translations = program.onnx_translations
        self.program = copy.deepcopy(program).to(dtype).eval()
        self.dtype = dtype

    @property
    def description(self) -> str:
        return self.program.description

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = self.program(image.to(self.dtype))
        if isinstance(found, Tensor):
            return found.float()
        return tuple(part.float() if part.is_floating_point() else part for part in found)
