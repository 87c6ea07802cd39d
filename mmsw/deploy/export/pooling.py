"""Adaptive average pooling in operators that every runtime has, for maps of any size.

Exporters know the intervals of adaptive pooling for one size alone. Where sizes stay open, PyTorch's
writes those of the example into the file, and the file is wrong at every other size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def interval_means(size: int | torch.SymInt, parts: int, device: torch.device) -> Tensor:
    """What averages ``size`` values to ``parts`` means, as a matrix ``[parts, size]``, float32.

    Mean ``i`` is over ``[floor(i * size / parts), ceil((i + 1) * size / parts))``, as in
    ``torch.nn.AdaptiveAvgPool2d``.
    """
    part = torch.arange(parts, device=device).unsqueeze(1)
    position = torch.arange(size, device=device)
    start = part * size // parts
    stop = ((part + 1) * size + parts - 1) // parts
    inside = (position >= start) & (position < stop)
    return inside.float() / (stop - start)


def adaptive_average_pool(x: Tensor, output_size: list[int]) -> Tensor:
    """Average pooling of maps ``[..., H, W]`` to ``output_size``, exact for every size.

    The rows are averaged first, then the columns, by two products with small matrices. Half
    precision is averaged in float32 and rounded once.
    """
    height, width = output_size
    if height == width == 1:
        return x.mean((-2, -1), keepdim=True)
    wide = x.float()
    rows = interval_means(x.shape[-2], height, x.device)
    columns = interval_means(x.shape[-1], width, x.device)
    return (rows @ wide @ columns.T).to(x.dtype)


# For ``torch.export.ExportedProgram.run_decompositions``.
POOLING = {torch.ops.aten.adaptive_avg_pool2d.default: adaptive_average_pool}
