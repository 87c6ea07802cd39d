"""Padding on the right and at the bottom, as the data preprocessors of the toolboxes do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Padding:
    """How images are padded behind their normalisation.

    Attributes:
        divisor: Sides become multiples of it.
        least: Least height and width, in place of ``divisor``.
        value: What is filled in.
    """

    divisor: int = 1
    least: tuple[int, int] | None = None
    value: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any] | None, value: float) -> Padding:
        """From ``size`` and ``size_divisor`` of a data preprocessor's test options."""
        options = options or {}
        size = options.get('size')
        return cls(
            divisor=int(options.get('size_divisor') or 1),
            least=None if size is None else (int(size[0]), int(size[1])),
            value=float(value),
        )

    @property
    def is_none(self) -> bool:
        """Whether every image stays as it is."""
        return self.divisor == 1 and self.least is None

    def __call__(self, image: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the padded size."""
        if self.is_none:
            return image
        height, width = image.shape[2:]
        if self.least is not None:
            below = torch.sym_max(self.least[0] - height, 0)
            right = torch.sym_max(self.least[1] - width, 0)
        else:
            below, right = (-height) % self.divisor, (-width) % self.divisor
        return F.pad(image, (0, right, 0, below), value=self.value)
