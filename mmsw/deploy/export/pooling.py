"""Adaptive average pooling in operators that every runtime has, for maps of any size.

Exporters know the intervals of adaptive pooling for one size alone. Where sizes stay open, those of
PyTorch (ONNX, AOTInductor) write the intervals of the example into the file, without complaint, and
the file is wrong at every other size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode


def interval_means(size: int | torch.SymInt, parts: int, device: torch.device) -> Tensor:
    """What averages ``size`` values to ``parts`` means, as a matrix ``[parts, size]``, float32.

    Mean ``i`` is over ``[floor(i * size / parts), ceil((i + 1) * size / parts))``, as in
    ``torch.nn.AdaptiveAvgPool2d``. Whole numbers are compared instead of divided: ``p`` is inside
    where ``i * size < parts * (p + 1)`` and ``parts * p < (i + 1) * size``.
    """
    start = torch.arange(parts, device=device).unsqueeze(1) * size
    position = torch.arange(size, device=device) * parts
    inside = (start < position + parts) & (position < start + size)
    weights = inside.float()
    return weights / weights.sum(1, keepdim=True)


def adaptive_average_pool(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """``torch.nn.functional.adaptive_avg_pool2d``, exact for maps ``[..., H, W]`` of every size.

    The rows are averaged first, then the columns, by two products with small matrices. Half
    precision is averaged in float32 and rounded once.
    """
    x, sides = input, zip(_pair(output_size), input.shape[-2:], strict=True)
    height, width = (side if wanted is None else wanted for wanted, side in sides)
    if height == width == 1:
        return x.mean((-2, -1), keepdim=True)
    rows = interval_means(x.shape[-2], height, x.device)
    columns = interval_means(x.shape[-1], width, x.device)
    return (rows @ x.float() @ columns.T).to(x.dtype)


class ExactPooling(TorchFunctionMode):
    """Inside, :func:`adaptive_average_pool` stands in for adaptive average pooling of maps."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.adaptive_avg_pool2d:
            func = adaptive_average_pool
        return func(*args, **(kwargs or {}))
