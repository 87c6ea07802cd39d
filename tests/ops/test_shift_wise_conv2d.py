"""shift_wise_conv2d against the loops of its definition: values, gradients, layouts."""

import pytest
import torch
import torch.nn.functional as F
from shift_wise_inputs import inputs
from shift_wise_literal import literal_shift_wise_conv2d, relative_error
from torch import Tensor

from mmsw.ops import ShiftPattern, shift_add, shift_wise_conv2d

pytestmark = pytest.mark.usefixtures('every_backend')

# (M, N, C, R): what the networks use, the edges (one group, N = 1, even M), every R
SIZES = [
    (5, 3, 2, 1),
    (13, 3, 3, 2),
    (47, 3, 2, 3),
    (49, 3, 2, 4),
    (51, 3, 1, 2),
    (13, 5, 3, 4),
    (49, 5, 2, 2),
    (51, 5, 2, 3),
    (3, 3, 2, 1),
    (7, 1, 2, 2),
    (6, 3, 2, 2),
]
# (B, H, W): odd, one position, smaller than the reach, rectangular, larger than the reach
SHAPES = [(2, 5, 7), (1, 1, 1), (2, 4, 2), (1, 3, 70), (1, 70, 3), (1, 37, 62)]
# largest error relative to the largest magnitude
ROUNDING = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 2e-2, torch.float16: 1.5e-3}


def exact_copies(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().double().contiguous().requires_grad_() for t in tensors]


def literal(x: Tensor, weight: Tensor, pattern: ShiftPattern) -> tuple[Tensor, Tensor, Tensor]:
    return literal_shift_wise_conv2d(x, weight, pattern.shift_hv, pattern.identity_index)


def assert_agrees(x: Tensor, weight: Tensor, pattern: ShiftPattern, bound: float) -> None:
    """Outputs and both gradients equal those of the loops in float64 on the same numbers."""
    outputs = shift_wise_conv2d(x, weight, pattern)
    exact = exact_copies(x, weight)
    expected = literal(*exact, pattern)
    grads = [torch.randn_like(out) for out in outputs]
    found_grads = torch.autograd.grad(outputs, (x, weight), grads)
    expected_grads = torch.autograd.grad(expected, exact, [grad.double() for grad in grads])
    names = ('h', 'v', 'i', 'grad_x', 'grad_weight')
    for name, found, target in zip(
        names, (*outputs, *found_grads), (*expected, *expected_grads), strict=True
    ):
        assert found.dtype == x.dtype
        assert found.is_contiguous()
        assert relative_error(found, target) < bound, name


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_equals_the_loops(sizes: tuple, shape: tuple) -> None:
    pattern = ShiftPattern.draw(*sizes)
    assert_agrees(*inputs(pattern, *shape), pattern, ROUNDING[torch.float64])


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('sizes', [(13, 3, 3, 2), (49, 3, 2, 4), (51, 5, 2, 1)], ids=str)
def test_equals_the_loops_in_every_dtype(sizes: tuple, shape: tuple, dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(*sizes)
    assert_agrees(*inputs(pattern, *shape, dtype), pattern, ROUNDING[dtype])


def test_equals_the_two_steps() -> None:
    pattern = ShiftPattern.draw(49, 3, 4, 4)
    x, weight = inputs(pattern, 2, 19, 23)
    two_steps = shift_add(F.conv2d(x, weight, padding=2, groups=4), pattern)
    for found, expected in zip(shift_wise_conv2d(x, weight, pattern), two_steps, strict=True):
        assert relative_error(found, expected) < 1e-12


def test_case_worked_out_by_hand() -> None:
    """One bright position shows the cross kernel, mirrored; group 0 sits in slot 1 of the width."""
    pattern = ShiftPattern(5, 3, torch.tensor([[-3, 0], [0, -3]]), torch.tensor([[1]]))
    block = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    weight = torch.cat([block, 10 * block]).requires_grad_()
    x = torch.zeros(1, 1, 3, 7)
    x[..., 1, 3] = 1
    h, v, i = shift_wise_conv2d(x, weight, pattern)
    assert h.tolist() == [
        [
            [
                [9, 8, 7, 90, 80, 70, 0],
                [6, 5, 4, 60, 50, 40, 0],
                [3, 2, 1, 30, 20, 10, 0],
            ]
        ]
    ]
    assert v.tolist() == [
        [
            [
                [0, 0, 30, 20, 10, 0, 0],
                [0, 0, 9, 8, 7, 0, 0],
                [0, 0, 6, 5, 4, 0, 0],
            ]
        ]
    ]
    assert i.tolist() == [
        [
            [
                [0, 0, 90, 80, 70, 0, 0],
                [0, 0, 60, 50, 40, 0, 0],
                [0, 0, 30, 20, 10, 0, 0],
            ]
        ]
    ]
    (grad,) = torch.autograd.grad(h[0, 0, 1, 0] + v[0, 0, 0, 2] + 2 * i[0, 0, 2, 4], weight)
    assert grad.tolist() == [
        [[[0, 0, 0], [0, 0, 1], [0, 0, 0]]],
        [[[2, 0, 1], [0, 0, 0], [0, 0, 0]]],
    ]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


def _strided(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=1).repeat_interleave(3, dim=3)[:, 1::2, :, ::3]


def _batch_expanded(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape)


@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
@pytest.mark.parametrize('layout', [_channels_last, _transposed, _strided, _batch_expanded])
def test_any_memory_layout(layout, dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    x, weight = inputs(pattern, 2, 11, 8, dtype)
    x = layout(x.detach()).requires_grad_()
    weight = _transposed(weight.detach()).requires_grad_()
    assert not x.is_contiguous()
    assert not weight.is_contiguous()
    assert_agrees(x, weight, pattern, ROUNDING[dtype])


@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
def test_expanded_and_transposed_gradients(dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    x, weight = inputs(pattern, 2, 11, 8, dtype)
    exact = exact_copies(x, weight)
    grads = [
        torch.randn((), dtype=dtype).expand(2, 3, 11, 8),
        _transposed(torch.randn(2, 3, 11, 8).to(dtype)),
        _channels_last(torch.randn(2, 3, 11, 8).to(dtype)),
    ]
    found = torch.autograd.grad(shift_wise_conv2d(x, weight, pattern), (x, weight), grads)
    expected = torch.autograd.grad(
        literal(*exact, pattern), exact, [grad.double() for grad in grads]
    )
    for ours, target in zip(found, expected, strict=True):
        assert relative_error(ours, target) < ROUNDING[dtype]


@pytest.mark.parametrize('output', [0, 1, 2])
def test_gradient_of_one_output_alone(output: int) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    x, weight = inputs(pattern, 2, 6, 8)
    exact = exact_copies(x, weight)
    found = torch.autograd.grad(shift_wise_conv2d(x, weight, pattern)[output].sum(), (x, weight))
    expected = torch.autograd.grad(literal(*exact, pattern)[output].sum(), exact)
    for ours, target in zip(found, expected, strict=True):
        assert relative_error(ours, target) < 1e-12


@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
def test_empty_batch(dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    x, weight = inputs(pattern, 0, 6, 8, dtype)
    outputs = shift_wise_conv2d(x, weight, pattern)
    assert [tuple(out.shape) for out in outputs] == [(0, 3, 6, 8)] * 3
    sum(out.sum() for out in outputs).backward()
    assert x.grad.shape == x.shape
    assert weight.grad.shape == weight.shape
    assert not weight.grad.any()


@pytest.mark.parametrize('sizes', [(13, 3, 3, 1), (49, 3, 2, 4)], ids=str)
def test_pruned_small_kernels(sizes: tuple) -> None:
    """Zeros are ordinary weights here: exact outputs, and a gradient as any other weight."""
    pattern = ShiftPattern.draw(*sizes)
    x, weight = inputs(pattern, 2, 9, 12)
    with torch.no_grad():
        weight[torch.rand(len(weight)) < 0.6] = 0
    assert_agrees(x, weight, pattern, 1e-12)
    with torch.no_grad():
        weight.zero_()
    assert not any(out.any() for out in shift_wise_conv2d(x, weight, pattern))


@pytest.mark.parametrize('sizes', [(5, 3, 2, 2), (5, 5, 1, 1), (9, 3, 1, 2)], ids=str)
@pytest.mark.parametrize('shape', [(1, 3, 4), (2, 1, 2)], ids=str)
def test_gradcheck(sizes: tuple, shape: tuple) -> None:
    pattern = ShiftPattern.draw(*sizes)
    arguments = inputs(pattern, *shape)
    assert torch.autograd.gradcheck(lambda *a: shift_wise_conv2d(*a, pattern), arguments)


@pytest.mark.parametrize('sizes', [(5, 3, 2, 2), (5, 5, 1, 1)], ids=str)
def test_gradgradcheck(sizes: tuple) -> None:
    pattern = ShiftPattern.draw(*sizes)
    arguments = inputs(pattern, 1, 2, 3)
    assert torch.autograd.gradgradcheck(lambda *a: shift_wise_conv2d(*a, pattern), arguments)


def test_gradient_penalty() -> None:
    """The use of second order: a loss that holds the gradient of the map."""
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    results = []
    for operator in (shift_wise_conv2d, literal):
        torch.manual_seed(1)
        x, weight = inputs(pattern, 2, 7, 6)
        value = sum((out**3).sum() for out in operator(x, weight, pattern))
        grads = torch.autograd.grad(value, (x, weight), create_graph=True)
        penalty = sum((grad**2).sum() for grad in grads)
        results.append(torch.autograd.grad(penalty, (x, weight)))
    for found, expected in zip(*results, strict=True):
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize('leaf', [0, 1])
def test_only_what_needs_a_gradient_gets_one(leaf: int) -> None:
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    arguments = [tensor.detach() for tensor in inputs(pattern, 1, 4, 4)]
    outputs = shift_wise_conv2d(*arguments, pattern)
    assert not any(out.requires_grad for out in outputs)
    arguments[leaf].requires_grad_()
    shift_wise_conv2d(*arguments, pattern)[0].sum().backward()
    assert arguments[leaf].grad is not None
    assert arguments[1 - leaf].grad is None


@pytest.mark.parametrize('guard', [torch.no_grad, torch.inference_mode])
def test_without_autograd(guard) -> None:
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    x, weight = inputs(pattern, 1, 4, 4)
    with guard():
        outputs = shift_wise_conv2d(x, weight, pattern)
    for found, expected in zip(outputs, literal(x, weight, pattern), strict=True):
        assert not found.requires_grad
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(49, 3, 3, 4)
    x, weight = inputs(pattern, 2, 12, 9, torch.float32)
    grads = [torch.randn(2, 3, 12, 9).to(dtype) for _ in range(3)]
    with torch.autocast('cpu', dtype=dtype):
        outputs = shift_wise_conv2d(x, weight, pattern)
        conv = F.conv2d(x, weight[:3], groups=3)
    found = torch.autograd.grad(outputs, (x, weight), grads)
    assert [out.dtype for out in outputs] == [conv.dtype] * 3 == [dtype] * 3
    assert [grad.dtype for grad in found] == [torch.float32] * 2

    rounded = [tensor.detach().to(dtype).requires_grad_() for tensor in (x, weight)]
    expected = shift_wise_conv2d(*rounded, pattern)
    expected_grads = torch.autograd.grad(expected, rounded, grads)
    for ours, target in zip((*outputs, *found), (*expected, *expected_grads), strict=True):
        assert torch.equal(ours, target.to(ours.dtype))


def test_autocast_leaves_float64_alone() -> None:
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = shift_wise_conv2d(*inputs(pattern, 1, 4, 4), pattern)
    assert [out.dtype for out in outputs] == [torch.float64] * 3


def test_autocast_joins_a_half_map_with_float_weights() -> None:
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    x, weight = inputs(pattern, 1, 4, 4, torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = shift_wise_conv2d(x.bfloat16(), weight, pattern)
    assert [out.dtype for out in outputs] == [torch.bfloat16] * 3


@pytest.mark.parametrize(
    'sizes', [(51, 3, 3, 2), (49, 3, 19, 4), (47, 3, 3, 1), (51, 5, 2, 2)], ids=str
)
def test_long_arms_in_float32(sizes: tuple) -> None:
    """oneDNN's own weight gradient is wrong at many of these map heights, see torch_backend.py."""
    pattern = ShiftPattern.draw(*sizes)
    wrong = []
    for length in range(1, 73, 3):
        for shape in ((length, 5), (5, length)):
            x, weight = inputs(pattern, 2, *shape, torch.float32)
            grads = [torch.randn_like(x) for _ in range(3)]
            results = []
            for tensors in ((x, weight), exact_copies(x, weight)):
                outputs = shift_wise_conv2d(*tensors, pattern)
                found = torch.autograd.grad(outputs, tensors, [g.to(tensors[0]) for g in grads])
                results.append((*outputs, *found))
            errors = [relative_error(*pair) for pair in zip(*results, strict=True)]
            if max(errors) > 1e-5:
                wrong.append((shape, errors))
    assert not wrong


def test_repeats_bit_for_bit() -> None:
    pattern = ShiftPattern.draw(49, 3, 19, 4)
    x, weight = inputs(pattern, 2, 21, 30, torch.float32)
    grads = [torch.randn_like(x) for _ in range(3)]
    conv_out = F.conv2d(x, weight, padding=2, groups=19)
    runs = []
    for _ in range(2):
        outputs = shift_wise_conv2d(x, weight, pattern)
        added = shift_add(conv_out, pattern)
        runs.append(
            (
                *outputs,
                *torch.autograd.grad(outputs, (x, weight), grads),
                *added,
                *torch.autograd.grad(added, conv_out, grads, retain_graph=True),
            )
        )
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


def test_runs_under_deterministic_algorithms() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    x, weight = inputs(pattern, 2, 7, 6, torch.float32)
    plain = shift_wise_conv2d(x, weight, pattern)
    torch.use_deterministic_algorithms(True)
    try:
        outputs = shift_wise_conv2d(x, weight, pattern)
        sum(out.sum() for out in outputs).backward()
        added = shift_add(F.conv2d(x, weight, padding=2, groups=3), pattern)
        sum(out.sum() for out in added).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    for found, expected in zip(outputs, plain, strict=True):
        assert torch.equal(found, expected)
