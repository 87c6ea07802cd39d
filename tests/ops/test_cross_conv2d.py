"""cross_conv2d: the folded form equals the sum of the three outputs of the operator."""

import pytest
import torch
import torch.nn.functional as F
from shift_wise_literal import relative_error

from mmsw.ops import ShiftPattern, cross_conv2d, shift_wise_conv2d
from mmsw.ops.assemble import assemble

pytestmark = pytest.mark.usefixtures('every_backend')

ROUNDING = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 2e-2, torch.float16: 1.5e-3}


@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
@pytest.mark.parametrize('shape', [(2, 3, 9, 20), (1, 3, 1, 1), (1, 3, 2, 60)], ids=str)
def test_equals_the_sum_of_the_outputs(shape: tuple, dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(49, 3, 3, 2)
    x = torch.randn(shape).to(dtype)
    weight = torch.randn(3 * pattern.num_groups, 1, 3, 3).to(dtype)
    bias = torch.randn(3).to(dtype)
    exact = x.double(), weight.double(), bias.double()
    expected = sum(shift_wise_conv2d(*exact[:2], pattern)) + exact[2].view(1, -1, 1, 1)

    wide, tall, small = assemble(weight.double(), pattern.tables())
    tall[:, pattern.reach - 1 : pattern.reach + 2] += small
    found = cross_conv2d(x, wide.to(dtype), tall.to(dtype), bias)
    assert found.dtype == dtype
    assert relative_error(found, expected) < ROUNDING[dtype]


def test_plain_kernels_without_bias() -> None:
    x = torch.randn(2, 3, 8, 7, dtype=torch.float64)
    wide = torch.randn(3, 9, 3, dtype=torch.float64)
    tall = torch.randn(3, 5, 3, dtype=torch.float64)
    expected = F.conv2d(x, wide.mT.unsqueeze(1), padding=(1, 4), groups=3)
    expected = expected + F.conv2d(x, tall.unsqueeze(1), padding=(2, 1), groups=3)
    assert relative_error(cross_conv2d(x, wide, tall), expected) < 1e-12


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    arguments = torch.randn(2, 3, 8, 7), torch.randn(3, 9, 3), torch.randn(3, 5, 3), torch.randn(3)
    with torch.autocast('cpu', dtype=dtype):
        found = cross_conv2d(*arguments)
    assert found.dtype == dtype
    assert torch.equal(found, cross_conv2d(*(tensor.to(dtype) for tensor in arguments)))
