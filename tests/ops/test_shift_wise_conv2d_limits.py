"""shift_wise_conv2d at its limits: values that are not finite, memory, meta tensors, bad input."""

import pytest
import torch
import torch.nn.functional as F
from shift_wise_inputs import inputs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmsw.ops import ShiftPattern, shift_add, shift_wise_conv2d
from mmsw.ops.backends import torch_backend

pytestmark = pytest.mark.usefixtures('every_backend')


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_bad_weight_spoils_its_own_channel_only(value: float, dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(13, 3, 19, 2)
    x, weight = inputs(pattern, 2, 24, 21, dtype)
    clean = shift_wise_conv2d(x, weight, pattern)
    clean_grad = torch.autograd.grad(sum(out.sum() for out in clean), x)[0]
    with torch.no_grad():
        weight[9 * pattern.num_groups + 2, 0, 1, 1] = value
    outputs = shift_wise_conv2d(x, weight, pattern)
    grad_x, grad_weight = torch.autograd.grad(sum(out.sum() for out in outputs), (x, weight))
    others = [channel for channel in range(19) if channel != 9]
    for found, expected in zip((*outputs, grad_x), (*clean, clean_grad), strict=True):
        assert torch.equal(found[:, others], expected[:, others])
    assert not outputs[0][:, 9].isfinite().all()
    assert grad_weight.isfinite().all()


def test_a_bad_weight_outside_the_identity_leaves_the_identity_output_clean() -> None:
    pattern = ShiftPattern.draw(13, 3, 1, 1)
    x, weight = inputs(pattern, 1, 9, 9)
    spoiled = (pattern.identity_index.item() + 1) % pattern.num_groups
    with torch.no_grad():
        weight[spoiled] = float('nan')
    assert shift_wise_conv2d(x, weight, pattern)[2].isfinite().all()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_bad_position_spoils_no_more_than_its_cross(value: float) -> None:
    """Inside the reach anything goes, as in every convolution: a pruned zero times Inf is NaN."""
    pattern = ShiftPattern.draw(13, 3, 2, 1)
    x, weight = inputs(pattern, 2, 24, 31, torch.float32)
    with torch.no_grad():
        x[1, 0, 11, 14] = value
    h, v, i = shift_wise_conv2d(x, weight, pattern)
    assert not i[1, 0, 10:13, 13:16].isfinite().any()
    reach = pattern.reach
    for out, rows, columns in ((h, 1, reach), (v, reach, 1), (i, 1, 1)):
        finite = out.isfinite()
        finite[1, 0, 11 - rows : 12 + rows, 14 - columns : 15 + columns] = True
        assert finite.all()


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operator returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return result


def largest_in_eager(pattern: ShiftPattern, x: Tensor, weight: Tensor, grads: list[Tensor]) -> int:
    tables = pattern.tables()
    with torch.no_grad(), LargestTensor() as largest:
        torch_backend.shift_wise_conv2d(x, weight, tables)
        torch_backend.shift_wise_conv2d_grad_input(grads, weight, tables)
        torch_backend.shift_wise_conv2d_grad_weight(grads, x, tables)
    return largest.numel


@pytest.mark.parametrize('height', [24, 64])
def test_nothing_of_the_size_of_the_small_convolutions_exists(height: int) -> None:
    pattern = ShiftPattern.draw(49, 3, 4, 4)
    x, weight = inputs(pattern, 8, height, 64, torch.float32)
    grads = [torch.randn_like(x) for _ in range(3)]
    assert x.numel() < largest_in_eager(pattern, x, weight, grads) < 4 * x.numel()

    with LargestTensor() as traced:
        outputs = torch_backend.trace_shift_wise_conv2d(x, weight, pattern.tables())
        torch.autograd.grad(outputs, (x, weight), grads)
    assert x.numel() < traced.numel < 4 * x.numel()

    with LargestTensor() as two_steps:
        shift_add(F.conv2d(x, weight, padding=2, groups=4), pattern)
    assert two_steps.numel > pattern.num_groups * x.numel()


@pytest.mark.parametrize('shape', [(64, 7, 9), (64, 6, 40), (64, 40, 6)], ids=str)
def test_padding_never_exceeds_three_maps(shape: tuple) -> None:
    """Maps far smaller than the reach: taps that see nothing of the map cost nothing."""
    pattern = ShiftPattern.draw(49, 3, 4, 4)
    x, weight = inputs(pattern, *shape, torch.float32)
    grads = [torch.randn_like(x) for _ in range(3)]
    assert largest_in_eager(pattern, x, weight, grads) < 3 * x.numel()


@pytest.mark.filterwarnings('error')
def test_meta_tensors_give_shapes() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2).to('meta')
    x, weight = torch.empty(2, 3, 7, 9, device='meta'), torch.empty(15, 1, 3, 3, device='meta')
    outputs = shift_wise_conv2d(x, weight, pattern)
    assert [tuple(out.shape) for out in outputs] == [(2, 3, 7, 9)] * 3


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(x=None), TypeError, 'x must be a Tensor, got NoneType'),
        (
            dict(x=torch.ones(1, 3, 9, 9, dtype=torch.uint8)),
            TypeError,
            r'x must be a floating-point tensor, got torch\.uint8',
        ),
        (
            dict(weight=torch.ones(15, 1, 3, 3, dtype=torch.complex64)),
            TypeError,
            r'weight must be a floating-point tensor, got torch\.complex64',
        ),
        (
            dict(x=torch.ones(1, 3, 9, 9, dtype=torch.float64)),
            TypeError,
            r'x and weight must have one dtype, got torch\.float64 and torch\.float32',
        ),
        (
            dict(x=torch.ones(3, 9, 9)),
            ValueError,
            r'x must be \[B, 3, H, W\] with H, W >= 1 .* got \[3, 9, 9\]',
        ),
        (
            dict(x=torch.ones(1, 4, 9, 9)),
            ValueError,
            r'x must be \[B, 3, .* ShiftPattern\(.*channels=3.* got \[1, 4, 9, 9\]',
        ),
        (dict(x=torch.ones(1, 3, 0, 9)), ValueError, r'H, W >= 1 .* got \[1, 3, 0, 9\]'),
        (
            dict(x=torch.ones(1, 3, 9, 9, device='meta')),
            ValueError,
            r'x is on meta, the pattern on cpu; move one of them with \.to\(\)',
        ),
        (
            dict(weight=torch.ones(15, 1, 3, 3, device='meta')),
            ValueError,
            r'weight is on meta, the pattern on cpu; move one of them with \.to\(\)',
        ),
        (
            dict(weight=torch.ones(15, 3, 3)),
            ValueError,
            r'weight must be \[15, 1, 3, 3\] for .* got \[15, 3, 3\]',
        ),
        (
            dict(weight=torch.ones(18, 1, 3, 3)),
            ValueError,
            r'weight must be \[15, 1, 3, 3\] for .* got \[18, 1, 3, 3\]',
        ),
        (
            dict(weight=torch.ones(15, 1, 5, 5)),
            ValueError,
            r'weight must be \[15, 1, 3, 3\] for .*small_kernel=3.* got \[15, 1, 5, 5\]',
        ),
        (dict(pattern=torch.zeros(15, 4)), TypeError, 'pattern must be a ShiftPattern, got Tensor'),
        (dict(backend='numpy'), ValueError, "backend: unknown backend 'numpy'; known are"),
    ],
)
def test_bad_input(change: dict, error: type[Exception], message: str) -> None:
    arguments = dict(
        x=torch.ones(1, 3, 9, 9),
        weight=torch.ones(15, 1, 3, 3),
        pattern=ShiftPattern.draw(13, 3, 3, 2),
    )
    with pytest.raises(error, match=message):
        shift_wise_conv2d(**{**arguments, **change})
