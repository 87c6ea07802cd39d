"""A large depthwise kernel as small kernels and the places where their outputs are added.

A kernel of ``M1 x M2`` weights is cut into ``n = ceil(M1 / N) * ceil(M2 / N)`` blocks of ``N x N``,
row by row, the last ones filled up with zeros. With "same" padding, output ``(y, x)`` of the kernel
is the sum over its blocks of output ``(y + row, x + column)`` of the small convolution, where
``(row, column)`` is the offset of the block's first weight from the centre (arXiv 2401.12736,
section "Decomposition").
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from mmsw.whole_number import whole_number


class DepthwiseDecomposition(NamedTuple):
    """Small kernels and where their outputs go.

    Attributes:
        weight: Small kernels ``[C * n, 1, N, N]``; the blocks of a channel follow each other.
        offsets: Row and column of the first weight of each of the ``n`` blocks; ``(0, 0)`` is the
            position of the output.
        kernel_size: ``(M1, M2)`` of the large kernel.
    """

    weight: Tensor
    offsets: tuple[tuple[int, int], ...]
    kernel_size: tuple[int, int]

    def compose(self) -> Tensor:
        """The large kernel again, ``[C, 1, M1, M2]``; differentiable."""
        height, width = self.kernel_size
        side = self.weight.shape[2]
        down, across = -(-height // side), -(-width // side)
        blocks = self.weight.reshape(-1, down, across, side, side).transpose(2, 3)
        whole = blocks.reshape(-1, 1, down * side, across * side)
        return whole[..., :height, :width].contiguous()


def decompose_depthwise(weight: Tensor, small_kernel: int = 5) -> DepthwiseDecomposition:
    """Cut a depthwise kernel into small kernels, differentiably.

    The convolution with the large kernel and "same" padding equals these two steps, where ``d`` is
    the result, ``p = N - 1``, and what is read outside of ``conv_out`` is zero::

        conv_out = F.conv2d(x, d.weight, padding=p, groups=C)
        out[b, c, y, x] = sum over j of
            conv_out[b, c * n + j, y + p + d.offsets[j][0], x + p + d.offsets[j][1]]

    Args:
        weight: ``[C, 1, M1, M2]``, sides of any length.
        small_kernel: Side N; odd.

    Returns:
        The small kernels and their places; ``compose()`` is the inverse.

    Raises:
        TypeError: If the weight is no floating-point tensor.
        ValueError: If it has another shape, or N is not odd and positive.
    """
    height, width = checked_kernel(weight)
    side = checked_side(small_kernel)
    down, across = -(-height // side), -(-width // side)
    whole = F.pad(weight, (0, across * side - width, 0, down * side - height))
    blocks = whole.reshape(-1, down, side, across, side).transpose(2, 3)
    above, left = same_padding(height)[0], same_padding(width)[0]
    offsets = tuple(
        (row * side - above, column * side - left)
        for row in range(down)
        for column in range(across)
    )
    return DepthwiseDecomposition(
        blocks.reshape(-1, 1, side, side).contiguous(), offsets, (height, width)
    )


def same_padding(length: int) -> tuple[int, int]:
    """Zeros before and after a map that keep its size under a kernel, as ``padding='same'`` has it.

    Args:
        length: Of the kernel; of an even one there is one more after the map than before it.
    """
    return (length - 1) // 2, length // 2


def checked_kernel(weight: Tensor) -> tuple[int, int]:
    """Height and width of a depthwise kernel.

    Raises:
        TypeError: If it is no floating-point tensor.
        ValueError: If it has another shape.
    """
    if not isinstance(weight, Tensor):
        raise TypeError(f'weight must be a Tensor, got {type(weight).__name__}')
    if not weight.is_floating_point():
        raise TypeError(f'weight must be a floating-point tensor, got {weight.dtype}')
    if weight.ndim != 4 or weight.shape[1] != 1 or any(side < 1 for side in weight.shape):
        raise ValueError(
            'weight must be [C, 1, M1, M2], one kernel of at least one weight per channel, got '
            f'{list(weight.shape)}'
        )
    return weight.shape[2], weight.shape[3]


def checked_side(small_kernel: int) -> int:
    """Side of the small kernels; raises ``ValueError`` unless it is odd and positive."""
    side = whole_number(small_kernel, 'small_kernel', positive=True)
    if side % 2 == 0:
        raise ValueError(f'small_kernel must be odd, got {side}')
    return side
