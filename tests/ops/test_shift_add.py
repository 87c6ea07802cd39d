"""shift_add: the authors' numbers, a case worked out by hand, and the loops of the definition."""

from pathlib import Path

import numpy as np
import pytest
import torch
from shift_wise_literal import literal_shift_add, relative_error
from torch import Tensor

from mmsw.ops import ShiftPattern, shift_add

pytestmark = pytest.mark.usefixtures('every_backend')

GOLDEN = ['13_5_r4', '47_3_r2', '49_3_r4', '51_5_r1', '51_5_r4']
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def conv_output(pattern: ShiftPattern, batch: int, height: int, width: int, **kwargs) -> Tensor:
    border = 2 * pattern.margin
    channels = pattern.channels * pattern.num_groups
    return torch.randn(batch, channels, height + border, width + border, **kwargs)


def hand_made_pattern() -> ShiftPattern:
    """M = 5, N = 3: two groups. Group 0 sits in slot 1 horizontally and in slot 0 vertically."""
    return ShiftPattern(5, 3, torch.tensor([[-3, 0], [0, -3]]), torch.tensor([[1]]))


@pytest.mark.parametrize('case', GOLDEN)
def test_golden(case: str, data_dir: Path) -> None:
    with np.load(data_dir / f'shift_add_{case}.npz') as file:
        golden = {key: torch.from_numpy(file[key]) for key in file}
    sizes = golden['big_kernel'].item(), golden['small_kernel'].item()
    pattern = ShiftPattern(*sizes, golden['shift_hv'], golden['identity_index'])
    conv_out = golden['conv_out'].requires_grad_()
    outputs = shift_add(conv_out, pattern)
    for name, out in zip('hvi', outputs, strict=True):
        assert relative_error(out, golden[f'out_{name}']) < 1e-6, name
    grads = [golden[f'grad_{name}'] for name in 'hvi']
    (grad,) = torch.autograd.grad(outputs, conv_out, grads)
    assert relative_error(grad, golden['grad_conv_out']) < 1e-6


def test_case_worked_out_by_hand() -> None:
    first = torch.arange(1.0, 26.0).view(5, 5)
    conv_out = torch.stack([first, 100 * first]).unsqueeze(0).requires_grad_()
    h, v, i = shift_add(conv_out, hand_made_pattern())
    assert h.tolist() == [[[[609, 710, 800], [1114, 1215, 1300], [1619, 1720, 1800]]]]
    assert v.tolist() == [[[[1702, 1803, 1904], [2207, 2308, 2409], [12, 13, 14]]]]
    assert i.tolist() == [[[[700, 800, 900], [1200, 1300, 1400], [1700, 1800, 1900]]]]

    marks = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    (grad,) = torch.autograd.grad((h, v, i), conv_out, (marks, 10 * marks, 100 * marks))
    assert grad.tolist() == [
        [
            [
                [0, 10, 20, 30, 0],
                [0, 40, 50, 61, 2],
                [0, 70, 80, 94, 5],
                [0, 0, 0, 7, 8],
                [0, 0, 0, 0, 0],
            ],
            [
                [0, 0, 0, 0, 0],
                [1, 102, 203, 300, 0],
                [4, 405, 506, 600, 0],
                [7, 718, 829, 930, 0],
                [0, 40, 50, 60, 0],
            ],
        ]
    ]


def test_a_group_drawn_twice_counts_twice() -> None:
    shift_hv = torch.tensor([[-3, -3, 0, 0], [0, 0, -3, -3]])
    pattern = ShiftPattern(5, 3, shift_hv, torch.tensor([[1, 1]]))
    conv_out = torch.ones(1, 2, 3, 3)
    assert shift_add(conv_out, pattern)[2].item() == 2


@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
@pytest.mark.parametrize(
    ('sizes', 'shape'),
    [
        ((5, 3, 2, 1), (1, 5, 7)),
        ((13, 3, 3, 2), (2, 1, 1)),
        ((13, 5, 3, 3), (2, 4, 3)),
        ((49, 3, 2, 4), (1, 9, 6)),
        ((51, 5, 2, 2), (2, 3, 70)),
        ((47, 3, 1, 3), (1, 70, 3)),
        ((7, 1, 2, 2), (1, 4, 5)),
    ],
    ids=str,
)
def test_equals_the_loops(sizes: tuple, shape: tuple, dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(*sizes)
    conv_out = conv_output(pattern, *shape, dtype=dtype).requires_grad_()
    exact = conv_out.detach().double().requires_grad_()
    outputs = shift_add(conv_out, pattern)
    expected = literal_shift_add(exact, pattern.shift_hv, pattern.identity_index, sizes[1])
    grads = [torch.randn_like(out) for out in outputs]
    (grad,) = torch.autograd.grad(outputs, conv_out, grads)
    (expected_grad,) = torch.autograd.grad(expected, exact, [g.double() for g in grads])
    for found, target in zip((*outputs, grad), (*expected, expected_grad), strict=True):
        assert found.dtype == dtype
        assert relative_error(found, target) < ROUNDING[dtype]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    """Sums of 68 terms would lose digits if they were added up in half precision."""
    pattern = ShiftPattern.draw(49, 3, 2, 4)
    conv_out = conv_output(pattern, 1, 30, 30, dtype=dtype)
    for found, exact in zip(
        shift_add(conv_out, pattern), shift_add(conv_out.double(), pattern), strict=True
    ):
        step = torch.finfo(dtype).eps * exact.abs() + 1e-6
        assert ((found.double() - exact).abs() <= 0.51 * step).all()


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.mT.contiguous().mT


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


def _strided(tensor: Tensor) -> Tensor:
    return tensor.repeat_interleave(2, dim=3).repeat_interleave(2, dim=1)[:, ::2, :, 1::2]


@pytest.mark.parametrize('layout', [_transposed, _channels_last, _strided])
def test_any_memory_layout(layout) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    plain = conv_output(pattern, 2, 7, 9).requires_grad_()
    strange = layout(plain.detach()).requires_grad_()
    assert not strange.is_contiguous()
    outputs = shift_add(strange, pattern)
    grads = [layout(torch.randn(2, 3, 7, 9)) for _ in outputs]
    (grad,) = torch.autograd.grad(outputs, strange, grads)
    expected = shift_add(plain, pattern)
    (expected_grad,) = torch.autograd.grad(expected, plain, [g.contiguous() for g in grads])
    assert all(out.is_contiguous() for out in outputs)
    for found, target in zip((*outputs, grad), (*expected, expected_grad), strict=True):
        assert torch.equal(found, target)


def test_expanded_gradients_and_unused_outputs() -> None:
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    conv_out = conv_output(pattern, 1, 4, 4, dtype=torch.float64).requires_grad_()
    exact = conv_out.detach().clone().requires_grad_()
    shift_add(conv_out, pattern)[1].sum().backward()
    expected = literal_shift_add(exact, pattern.shift_hv, pattern.identity_index, 3)
    expected[1].sum().backward()
    assert torch.equal(conv_out.grad, exact.grad)


def test_empty_batch() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    conv_out = conv_output(pattern, 0, 7, 9).requires_grad_()
    outputs = shift_add(conv_out, pattern)
    assert [tuple(out.shape) for out in outputs] == [(0, 3, 7, 9)] * 3
    sum(out.sum() for out in outputs).backward()
    assert conv_out.grad.shape == conv_out.shape


@pytest.mark.parametrize('sizes', [(5, 3, 2, 2), (7, 5, 1, 1)], ids=str)
def test_gradcheck(sizes: tuple) -> None:
    pattern = ShiftPattern.draw(*sizes)
    conv_out = conv_output(pattern, 1, 3, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: shift_add(y, pattern), conv_out)
    assert torch.autograd.gradgradcheck(lambda y: shift_add(y, pattern), conv_out)


@pytest.mark.filterwarnings('error')
def test_autocast_leaves_the_sum_in_the_input_dtype() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    conv_out = conv_output(pattern, 1, 5, 5)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = shift_add(conv_out, pattern)
    for found, expected in zip(outputs, shift_add(conv_out, pattern), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_not_finite_values_stay_where_they_are_read() -> None:
    """Every output reads a value once per slot: one Inf spoils as many positions, no more."""
    pattern = ShiftPattern.draw(13, 3, 2, 1)
    conv_out = conv_output(pattern, 1, 40, 40)
    conv_out[0, 3, 20, 21] = torch.inf
    h, v, i = shift_add(conv_out, pattern)
    right, down = pattern.shift_hv[3].tolist()
    assert (~h.isfinite()).nonzero().tolist() == [[0, 0, 20 - 1, 21 + right]]
    assert (~v.isfinite()).nonzero().tolist() == [[0, 0, 20 + down, 21 - 1]]
    expected = [[0, 0, 19, 20]] if pattern.identity_index[0].item() == 3 else []
    assert (~i.isfinite()).nonzero().tolist() == expected


def test_meta_tensors_give_shapes() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2).to('meta')
    outputs = shift_add(torch.empty(2, 15, 9, 11, device='meta'), pattern)
    assert [tuple(out.shape) for out in outputs] == [(2, 3, 7, 9)] * 3


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(conv_out=[1.0]), TypeError, 'conv_out must be a Tensor, got list'),
        (
            dict(conv_out=torch.ones(1, 15, 9, 9, dtype=torch.int64)),
            TypeError,
            r'conv_out must be a floating-point tensor, got torch\.int64',
        ),
        (
            dict(conv_out=torch.ones(15, 9, 9)),
            ValueError,
            r'conv_out must be \[B, 15, H \+ 2, W \+ 2\] .* got \(15, 9, 9\)',
        ),
        (
            dict(conv_out=torch.ones(1, 14, 9, 9)),
            ValueError,
            r'conv_out must be \[B, 15, .* ShiftPattern\(.*channels=3.* got \(1, 14, 9, 9\)',
        ),
        (
            dict(conv_out=torch.ones(1, 15, 9, 2)),
            ValueError,
            r'H, W >= 1 .* got \(1, 15, 9, 2\)',
        ),
        (
            dict(conv_out=torch.ones(1, 15, 9, 9, device='meta')),
            ValueError,
            r'conv_out is on meta, the pattern on cpu; move one of them with \.to\(\)',
        ),
        (dict(pattern=None), TypeError, 'pattern must be a ShiftPattern, got NoneType'),
        (dict(backend='numpy'), ValueError, "backend: unknown backend 'numpy'; known are"),
    ],
)
def test_bad_input(change: dict, error: type[Exception], message: str) -> None:
    arguments = dict(conv_out=torch.ones(1, 15, 9, 9), pattern=ShiftPattern.draw(13, 3, 3, 2))
    with pytest.raises(error, match=message):
        shift_add(**{**arguments, **change})
