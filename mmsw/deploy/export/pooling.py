"""Adaptive average pooling in operators that every runtime has, for maps of any size.

Exporters know the intervals of adaptive pooling for one size alone. Where sizes stay open, PyTorch's
writes those of the example into the file, and the file is wrong at every other size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmsw.errors import UsageError


def interval_means(size: int | torch.SymInt, parts: int, device: torch.device) -> Tensor:
    """What averages ``size`` values to ``parts`` means, as a matrix ``[parts, size]``, float32.

    Mean ``i`` is over ``[floor(i * size / parts), ceil((i + 1) * size / parts))``, as in
    ``torch.nn.AdaptiveAvgPool2d``.
    """
    first = torch.arange(parts, device=device).unsqueeze(1) * size
    position = torch.arange(size, device=device) * parts
    # without a division: ``n >= floor(a / b)`` is ``n * b > a - b``, ``n < ceil(a / b)`` is below
    inside = ((position > first - parts) & (position < first + size)).float()
    return inside / inside.sum(1, keepdim=True)


def adaptive_average_pool(x: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """Average pooling of maps ``[..., H, W]``, exact for every size.

    The rows are averaged first, then the columns, by products with small matrices. Half precision
    is averaged in float32 and rounded once.

    Args:
        x: The maps.
        output_size: As of ``torch.nn.AdaptiveAvgPool2d``.
    """
    sides = (output_size, output_size) if isinstance(output_size, int) else output_size
    height, width = (
        own if side is None else side for side, own in zip(sides, x.shape[-2:], strict=True)
    )
    if height == width == 1:
        return x.mean((-2, -1), keepdim=True)
    rows = interval_means(x.shape[-2], height, x.device)
    columns = interval_means(x.shape[-1], width, x.device)
    return (rows @ x.float() @ columns.T).to(x.dtype)


class ExactPooling(TorchFunctionMode):
    """Inside, adaptive average pooling is :func:`adaptive_average_pool`, whoever calls it.

    Raises:
        UsageError: Where another adaptive pooling is called, which has no such form here.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (F.adaptive_avg_pool2d, torch._C._nn.adaptive_avg_pool2d):
            return adaptive_average_pool(*args, **kwargs)
        name = getattr(func, '__name__', '')
        if name.startswith('adaptive_'):
            raise UsageError(f'{name} has no form in ONNX for images of any size')
        return func(*args, **kwargs)
