"""depthwise_conv2d equals the large convolution on every backend, with all its gradients."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from shift_wise_literal import relative_error
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmsw.ops import available_backends, depthwise_conv2d
from mmsw.ops.backends import cpp_backend, taichi_depthwise
from mmsw.ops.backends.cpp_depthwise import is_built
from mmsw.ops.depthwise_library import depthwise_conv2d_op, grad_input_op, grad_weight_op

ROUNDING = {torch.float64: 1e-12, torch.float32: 4e-6, torch.bfloat16: 1e-2, torch.float16: 1.5e-3}
KERNELS = [(51, 5), (5, 51), (31, 31), (13, 13), (7, 7), (1, 1), (4, 6), (2, 9), (12, 3), (1, 8)]
MAPS = [(2, 3, 9, 12), (1, 3, 1, 1), (4, 2, 7, 7), (1, 2, 33, 40), (1, 2, 3, 70)]
TAICHI_CASES = [((51, 5), (2, 3, 9, 8)), ((5, 18), (1, 2, 3, 40)), ((13, 12), (2, 2, 7, 7))]


@pytest.fixture(params=['torch', 'cpp'])
def backend(request: pytest.FixtureRequest) -> str:
    reason = available_backends()[request.param]
    if reason is not True:
        pytest.skip(f'{request.param}: {reason}')
    return request.param


@pytest.fixture(params=['direct', 'always'])
def arithmetic(request: pytest.FixtureRequest) -> Iterator[str]:
    if cpp_backend.unavailable_reason() is not None:
        pytest.skip(f'cpp: {cpp_backend.unavailable_reason()}')
    before = cpp_backend.arithmetic()
    cpp_backend.set_arithmetic(request.param)
    yield request.param
    cpp_backend.set_arithmetic(before)


def draw(shape: tuple, kernel: tuple, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Map, kernel, bias and gradient of the output."""
    generator = torch.Generator().manual_seed(sum(shape) + sum(kernel))
    shapes = shape, (shape[1], 1, *kernel), (shape[1],), shape
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def large_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The definition, tap by tap, with the padding of ``padding='same'``."""
    height, width = weight.shape[2:]
    above, left = (height - 1) // 2, (width - 1) // 2
    padded = F.pad(x, (left, width - 1 - left, above, height - 1 - above))
    rows, columns = x.shape[2:]
    out = torch.zeros_like(x)
    for row in range(height):
        for column in range(width):
            tap = weight[:, 0, row, column].view(-1, 1, 1)
            out = out + tap * padded[..., row : row + rows, column : column + columns]
    return out if bias is None else out + bias.view(-1, 1, 1)


def results(run: object, *tensors: Tensor) -> list[Tensor]:
    """Output and gradients of map, kernel and bias."""
    *inputs, grad = tensors
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    out = run(*leaves)
    return [out, *torch.autograd.grad(out, leaves, grad)]


def assert_equal_results(found: list[Tensor], expected: list[Tensor], bound: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < bound
        assert one.is_contiguous()


@pytest.mark.parametrize('kernel', KERNELS, ids=str)
@pytest.mark.parametrize('shape', MAPS, ids=str)
def test_equals_the_definition(backend: str, shape: tuple, kernel: tuple) -> None:
    tensors = draw(shape, kernel)
    expected = results(large_convolution, *tensors)
    found = results(lambda *a: depthwise_conv2d(*a, backend=backend), *tensors)
    assert_equal_results(found, expected, 1e-12)


@pytest.mark.filterwarnings('ignore:Using padding')
def test_even_sides_are_padded_as_torch_pads_them() -> None:
    x, weight, bias, _ = draw((1, 2, 9, 8), (4, 6))
    expected = F.conv2d(x, weight, bias, padding='same', groups=2)
    assert relative_error(depthwise_conv2d(x, weight, bias), expected) < 1e-12


@pytest.mark.parametrize('dtype', ROUNDING, ids=str)
@pytest.mark.parametrize('kernel', [(51, 5), (5, 51), (13, 13), (6, 4)], ids=str)
def test_types(backend: str, kernel: tuple, dtype: torch.dtype) -> None:
    tensors = draw((2, 3, 20, 23), kernel, dtype)
    expected = results(large_convolution, *(tensor.double() for tensor in tensors))
    found = results(lambda *a: depthwise_conv2d(*a, backend=backend), *tensors)
    assert all(tensor.dtype == dtype for tensor in found)
    assert_equal_results(found, expected, ROUNDING[dtype])


@pytest.mark.parametrize('kernel', [(51, 5), (5, 51), (3, 13), (31, 31), (10, 7)], ids=str)
@pytest.mark.parametrize('shape', [(1, 2, 56, 50), (4, 2, 14, 14)], ids=str)
def test_instructions_and_arithmetic(
    instructions: str, arithmetic: str, shape: tuple, kernel: tuple
) -> None:
    tensors = draw(shape, kernel, torch.float32)
    exact = [tensor.double() for tensor in tensors]
    expected = results(lambda *a: depthwise_conv2d(*a, backend='torch'), *exact)
    found = results(lambda *a: depthwise_conv2d(*a, backend='cpp'), *tensors)
    assert_equal_results(found, expected, 6e-6)


@pytest.mark.parametrize('small_kernel', [1, 3, 5, 9])
def test_any_cut(backend: str, small_kernel: int) -> None:
    x, weight, bias, _ = draw((1, 2, 11, 13), (13, 10))
    expected = large_convolution(x, weight, bias)
    found = depthwise_conv2d(x, weight, bias, small_kernel, backend)
    assert relative_error(found, expected) < 1e-12


def test_zero_blocks_are_not_computed() -> None:
    """An infinity of the map does not meet weights of zero, as it would in a sum over all taps."""
    if not is_built():
        pytest.skip('cpp: the library has no depthwise operator')
    x, weight, *_ = draw((1, 1, 12, 12), (15, 10), torch.float32)
    weight[:, :, 5:, 3:] = 0
    expected = depthwise_conv2d(x, weight, backend='cpp')
    x[0, 0, 11, 11] = float('inf')
    found = depthwise_conv2d(x, weight, backend='cpp')
    assert torch.isfinite(found[0, 0, :6, :6]).all()
    assert torch.equal(found[0, 0, :6, :6], expected[0, 0, :6, :6])


def test_memory_layouts_and_the_empty_batch(backend: str) -> None:
    x, weight, bias, grad = draw((2, 4, 9, 7), (9, 4))
    expected = results(lambda *a: depthwise_conv2d(*a, backend=backend), x, weight, bias, grad)
    last = torch.channels_last
    strided = x.mT.contiguous().mT, weight.mT.contiguous().mT, bias, grad.to(memory_format=last)
    found = results(lambda *a: depthwise_conv2d(*a, backend=backend), *strided)
    assert_equal_results(found, expected, 1e-12)
    out, *grads = results(
        lambda *a: depthwise_conv2d(*a, backend=backend), x[:0], weight, bias, grad[:0]
    )
    assert out.shape == (0, 4, 9, 7)
    assert [tuple(g.shape) for g in grads] == [(0, 4, 9, 7), (4, 1, 9, 4), (4,)]
    assert not grads[1].any()


@pytest.mark.parametrize('kernel', [(4, 7), (5, 3)], ids=str)
def test_gradients_of_gradients(backend: str, kernel: tuple) -> None:
    tensors = [tensor.requires_grad_() for tensor in draw((1, 2, 4, 5), kernel)[:3]]

    def run(*arguments: Tensor) -> Tensor:
        return depthwise_conv2d(*arguments, backend=backend)

    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


def test_opcheck(backend: str) -> None:
    x, weight, bias, grad = (tensor.requires_grad_() for tensor in draw((2, 2, 5, 6), (7, 4)))
    torch.library.opcheck(depthwise_conv2d_op, (x, weight, bias, 5, backend))
    torch.library.opcheck(grad_input_op, (grad, weight, 5, backend))
    torch.library.opcheck(grad_weight_op, (grad, x, 7, 4, 5, backend))


def test_autocast(backend: str) -> None:
    x, weight, bias, _ = draw((1, 2, 9, 8), (9, 3), torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = depthwise_conv2d(x, weight, bias, backend=backend)
    half = [tensor.bfloat16() for tensor in (x, weight, bias)]
    assert torch.equal(found, depthwise_conv2d(*half, backend=backend))


def test_compiled_and_exported(backend: str) -> None:
    x, weight, bias, _ = draw((2, 3, 9, 8), (13, 5), torch.float32)

    class Layer(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return depthwise_conv2d(x, weight, bias, backend=backend)

    expected = Layer()(x)
    torch.compiler.reset()
    compiled = torch.compile(Layer(), fullgraph=True, backend='aot_eager')
    assert relative_error(compiled(x), expected) < 4e-6
    exported = torch.export.export(Layer(), (x,))
    assert relative_error(exported.module()(x), expected) < 4e-6
    assert not any('mmsw' in str(node.target) for node in exported.graph.nodes)


def test_transforms_of_torch_func(backend: str) -> None:
    x, weight, *_ = draw((2, 2, 5, 6), (7, 3))

    def loss(weight: Tensor, sample: Tensor) -> Tensor:
        return depthwise_conv2d(sample[None], weight, backend=backend).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, x)
    for sample, grad in zip(x, found, strict=True):
        leaf = weight.clone().requires_grad_()
        large_convolution(sample[None], leaf).square().sum().backward()
        assert relative_error(grad, leaf.grad) < 1e-12


def test_flops_are_those_of_the_large_convolution(backend: str) -> None:
    def count(run: object) -> int:
        x, weight, bias, grad = draw((2, 3, 9, 8), (13, 5))
        with FlopCounterMode(display=False) as counter:
            results(run, x, weight, bias, grad)
        return counter.get_total_flops()

    taps = 2 * 13 * 5 * 2 * 3 * 9 * 8  # two operations per weight and output
    assert count(lambda *a: depthwise_conv2d(*a, backend=backend)) == 3 * taps


@pytest.mark.parametrize('case', TAICHI_CASES, ids=str)
def test_taichi(case: tuple) -> None:
    reason = available_backends()['taichi']
    if reason is not True:
        pytest.skip(f'taichi: {reason}')
    kernel, shape = case
    tensors = draw(shape, kernel, torch.float32)
    expected = results(large_convolution, *(tensor.double() for tensor in tensors))
    found = results(lambda *a: depthwise_conv2d(*a, 3, 'taichi'), *tensors)  # compiles fastest
    assert_equal_results(found, expected, 4e-6)


def test_blocks_beyond_the_kernel_hold_no_zeros() -> None:
    """The side of the blocks may be any; what Taichi unrolls is bounded by the kernel."""
    (x, weight, bias, grad), side = draw((1, 2, 4, 5), (3, 2)), 10**6 + 1
    arms = taichi_depthwise._arms(weight, side)
    assert [tuple(arm.blocks.shape) for arm in arms] == [(2, 1, 3, 3)]
    expected = results(large_convolution, x, weight, bias, grad)
    if available_backends()['taichi'] is True:
        found = results(lambda *a: depthwise_conv2d(*a, side, 'taichi'), x, weight, bias, grad)
        assert_equal_results(found, expected, 1e-12)


def bad_calls() -> list:
    x, weight, bias, _ = draw((1, 2, 5, 6), (7, 3))
    return [
        (dict(x=x[0]), ValueError, r'x must be \[B, 2, H, W\]'),
        (dict(x=x[:, :1]), ValueError, r'x must be \[B, 2, H, W\]'),
        (dict(weight=weight[:, 0]), ValueError, r'weight must be \[C, 1, M1, M2\]'),
        (dict(weight=weight.float()), TypeError, 'one dtype'),
        (dict(weight=weight.long()), TypeError, 'floating-point'),
        (dict(bias=bias[:1]), ValueError, r'bias must be \[2\]'),
        (dict(bias=[0.0, 1.0]), TypeError, 'bias must be a Tensor or None, got list'),
        (dict(small_kernel=4), ValueError, 'small_kernel must be odd, got 4'),
        (dict(small_kernel=0), ValueError, 'small_kernel must be a positive integer'),
        (dict(backend='numpy'), ValueError, "unknown backend 'numpy'"),
        (dict(weight=weight.to('meta')), ValueError, 'weight is on meta'),
    ]


@pytest.mark.parametrize(('changes', 'error', 'message'), bad_calls())
def test_bad_arguments(changes: dict, error: type, message: str) -> None:
    x, weight, bias, _ = draw((1, 2, 5, 6), (7, 3))
    with pytest.raises(error, match=message):
        depthwise_conv2d(**{**dict(x=x, weight=weight, bias=bias), **changes})
