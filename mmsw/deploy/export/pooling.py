"""Adaptive average pooling in operators that every runtime has, for maps of any size.

Exporters know the intervals of adaptive pooling for one size alone. Where sizes stay open, that of
PyTorch writes those of the example into the file, and the file is wrong at every other size.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def adaptive_average_pool(x: Tensor, output_size: list[int]) -> Tensor:
    """Average pooling of maps ``[..., H, W]`` to ``output_size``, exact for every size.

    The rows are averaged first, then the columns, by two products with small matrices. Half
    precision is averaged in float32 and rounded once.
    """
    height, width = output_size
    if height == width == 1:
        return x.mean((-2, -1), keepdim=True)
    rows = interval_means(x.shape[-2], height, x.device)
    columns = interval_means(x.shape[-1], width, x.device)
    return (rows @ x.float() @ columns.T).to(x.dtype)


# For ``torch.export.ExportedProgram.run_decompositions``.
POOLING = {torch.ops.aten.adaptive_avg_pool2d.default: adaptive_average_pool}
