"""Random maps and small kernels that the tests of the fused operator share."""

import torch
from torch import Tensor

from mmsw.ops import ShiftPattern


def inputs(
    pattern: ShiftPattern, batch: int, height: int, width: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """A map and small kernels that ask for gradients."""
    side = pattern.small_kernel
    x = torch.randn(batch, pattern.channels, height, width).to(dtype)
    weight = torch.randn(pattern.channels * pattern.num_groups, 1, side, side).to(dtype)
    return x.requires_grad_(), weight.requires_grad_()
