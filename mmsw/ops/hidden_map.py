"""The pass over the hidden map of a block: bias, GELU and what the next product needs of it.

Maps are channel-major: ``[B, K, P]`` with K hidden channels and P positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bias_gelu(hidden: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """GELU of ``hidden + bias`` and its sums of squares over the positions.

    Args:
        hidden: ``[B, K, P]``, contiguous; it may be overwritten where no gradient is wanted.
        bias: ``[K]`` or ``[B, K]``.

    Returns:
        The map, and the sums, float32 (float64 for float64), ``[B, K]``.
    """
    hidden = F.gelu(hidden + bias.unsqueeze(-1))
    wide = torch.promote_types(hidden.dtype, torch.float32)
    return hidden, torch.linalg.vector_norm(hidden, dim=2, dtype=wide).square()


def norm_gelu(hidden: Tensor, mean: Tensor, rstd: Tensor, column: Tensor, bias: Tensor) -> Tensor:
    """GELU of ``rstd * (hidden - column * mean) + bias``.

    Args:
        hidden: ``[B, K, P]``, contiguous; it may be overwritten where no gradient is wanted.
        mean: ``[B, P]``.
        rstd: ``[B, P]``.
        column: ``[K]``.
        bias: ``[K]``.
    """
    column, bias = column.view(-1, 1), bias.view(-1, 1)
    return F.gelu((hidden - column * mean.unsqueeze(1)) * rstd.unsqueeze(1) + bias)
