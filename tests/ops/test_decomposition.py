"""decompose_depthwise: literal small convolutions and shifted slices make the large convolution."""

import pytest
import torch
import torch.nn.functional as F
from shift_wise_literal import relative_error
from torch import Tensor

from mmsw.ops import DepthwiseDecomposition, decompose_depthwise

KERNELS = [(51, 5), (5, 49), (31, 31), (13, 13), (4, 6), (1, 1), (2, 17)]


def small_convolutions_and_shifts(x: Tensor, cut: DepthwiseDecomposition) -> Tensor:
    """Both steps as the text has them: a small convolution per block, its output moved, a sum."""
    batch, channels, height, width = x.shape
    side, count = cut.weight.shape[2], len(cut.offsets)
    conv_out = F.conv2d(x, cut.weight, padding=side - 1, groups=channels)
    conv_out = conv_out.reshape(batch, channels, count, *conv_out.shape[2:])
    far = max(abs(offset) for pair in cut.offsets for offset in pair) + side
    padded = F.pad(conv_out, (far, far, far, far))
    out = torch.zeros_like(x)
    for block, (row, column) in enumerate(cut.offsets):
        top, left = far + side - 1 + row, far + side - 1 + column
        out = out + padded[:, :, block, top : top + height, left : left + width]
    return out


@pytest.mark.parametrize('side', [3, 5])
@pytest.mark.parametrize('kernel', KERNELS, ids=str)
@pytest.mark.parametrize(
    ('dtype', 'bound'), [(torch.float64, 1e-12), (torch.float32, 4e-6)], ids=str
)
@pytest.mark.filterwarnings('ignore:Using padding')
def test_adds_up_to_the_large_convolution(
    kernel: tuple, side: int, dtype: torch.dtype, bound: float
) -> None:
    x = torch.randn(2, 3, 17, 20, dtype=dtype)
    weight = torch.randn(3, 1, *kernel, dtype=dtype)
    cut = decompose_depthwise(weight, side)
    blocks = -(-kernel[0] // side) * -(-kernel[1] // side)
    assert cut.weight.shape == (3 * blocks, 1, side, side)
    assert len(cut.offsets) == blocks
    expected = F.conv2d(x.double(), weight.double(), padding='same', groups=3)
    assert relative_error(small_convolutions_and_shifts(x, cut), expected) < bound


@pytest.mark.parametrize('kernel', KERNELS, ids=str)
def test_compose_is_the_inverse(kernel: tuple) -> None:
    weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
    cut = decompose_depthwise(weight, 5)
    assert torch.equal(cut.compose(), weight)
    cut.compose().square().sum().backward()
    assert torch.equal(weight.grad, 2 * weight.detach())


def test_the_last_blocks_are_filled_with_zeros() -> None:
    cut = decompose_depthwise(torch.ones(1, 1, 7, 5), 5)
    assert cut.offsets == ((-3, -2), (2, -2))
    assert cut.weight[1, 0].sum(1).tolist() == [5, 5, 0, 0, 0]


@pytest.mark.parametrize(
    ('weight', 'side', 'error', 'message'),
    [
        (torch.ones(3, 5, 5), 5, ValueError, r'weight must be \[C, 1, M1, M2\]'),
        (torch.ones(3, 2, 5, 5), 5, ValueError, r'got \[3, 2, 5, 5\]'),
        (torch.ones(3, 1, 5, 5, dtype=torch.int64), 5, TypeError, 'floating-point'),
        ([[1.0]], 5, TypeError, 'weight must be a Tensor, got list'),
        (torch.ones(3, 1, 5, 5), 2, ValueError, 'small_kernel must be odd, got 2'),
    ],
)
def test_bad_arguments(weight: object, side: int, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        decompose_depthwise(weight, side)
