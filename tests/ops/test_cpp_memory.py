"""Memory of large results of the C++ backend: used again, never while a tensor holds it."""

import sys

import pytest
import torch
from torch import Tensor

from mmsw.ops import ShiftPattern, shift_wise_conv2d
from mmsw.ops.backends import cpp_backend

pytestmark = [
    pytest.mark.skipif(
        cpp_backend.unavailable_reason() is not None,
        reason=f'cpp: {cpp_backend.unavailable_reason()}',
    ),
    pytest.mark.skipif(sys.platform != 'linux', reason='memory is kept on Linux alone'),
]


def forward(x: Tensor) -> tuple[Tensor, ...]:
    pattern = ShiftPattern.draw(7, 3, 1, 1)
    return shift_wise_conv2d(x, torch.ones(pattern.num_groups, 1, 3, 3), pattern, backend='cpp')


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 1, 512, 600)  # 1.2 MB


def places(outputs: tuple[Tensor, ...]) -> set[int]:
    return {output.data_ptr() for output in outputs}


def test_memory_of_freed_maps_is_used_again(x: Tensor) -> None:
    first = forward(x)
    expected = [output.clone() for output in first]
    before = places(first)
    del first
    again = forward(x)
    assert places(again) == before
    assert all(map(torch.equal, again, expected))


def test_memory_that_a_view_holds_is_not_used_again(x: Tensor) -> None:
    views = [output[0, 0, 100] for output in forward(x)]
    expected = [view.clone() for view in views]
    forward(x + 1)
    assert all(map(torch.equal, views, expected))


def test_results_are_tensors_like_any_other(x: Tensor) -> None:
    output = forward(x)[0]
    values = output.clone()
    output.resize_(2, 1, 512, 600)
    assert torch.equal(output[:1], values)
    assert output.untyped_storage().nbytes() == 2 * values.untyped_storage().nbytes()
