"""depthwise_conv2d of the cuda backend on a GPU: values, gradients, dtypes, layouts, repeats."""

import pytest
import torch
from cuda_cases import KERNELS, ROUNDING, SHAPES, draw_kernel, evaluate_depthwise, wrong_results
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmsw.ops import BackendUnavailableError, depthwise_conv2d
from mmsw.ops.backends import choose_backend, cuda_backend, torch_backend
from mmsw.ops.backends.call import Call

if (reason := cuda_backend.unavailable_reason()) is not None:
    pytest.skip(f'cuda: {reason}', allow_module_level=True)

LARGE = [((31, 31), (20, 57, 70), 5), ((51, 5), (3, 128, 96), 5), ((7, 7), (4, 65, 64), 5)]


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('case', KERNELS, ids=str)
def test_agrees_with_the_reference(case: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    *kernel, side = case
    for shape in SHAPES:
        tensors = draw_kernel(kernel, shape, dtype)
        expected = evaluate_depthwise(torch_backend, tensors, side)
        ours = [tensor.to('cuda', dtype) for tensor in tensors]
        found = evaluate_depthwise(cuda_backend, ours, side)
        assert not wrong_results(found, expected, dtype), shape


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('case', LARGE, ids=str)
def test_many_tiles_and_chunks(case: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    kernel, shape, side = case
    tensors = [tensor.to('cuda') for tensor in draw_kernel(kernel, shape, dtype)]
    expected = evaluate_depthwise(torch_backend, tensors, side)
    ours = [tensor.to(dtype) for tensor in tensors]
    first = evaluate_depthwise(cuda_backend, ours, side)
    assert not wrong_results(first, expected, dtype)
    for name, again in evaluate_depthwise(cuda_backend, ours, side).items():
        assert torch.equal(again, first[name]), name


def test_gradients_of_any_order() -> None:
    torch.manual_seed(2)
    shapes = (1, 2, 4, 5), (2, 1, 4, 7), (2,)
    tensors = [
        torch.randn(s, dtype=torch.float64, device='cuda', requires_grad=True) for s in shapes
    ]

    def run(*arguments: Tensor) -> Tensor:
        return depthwise_conv2d(*arguments, backend='cuda')

    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


def test_an_infinity_reaches_what_the_kernel_reaches() -> None:
    torch.manual_seed(3)
    for kernel in ((7, 7), (11, 4), (3, 8)):
        x, weight, bias, _ = (t.cuda().float() for t in draw_kernel(kernel, (1, 40, 40)))
        x[0, 0, 14, 17] = float('inf')
        expected = torch_backend.depthwise_conv2d(x.double(), weight.double(), bias.double(), 5)
        found = cuda_backend.depthwise_conv2d(x, weight, bias, 5)
        assert torch.equal(found.isfinite(), expected.isfinite()), kernel


@pytest.mark.parametrize('change', ['channels_last', 'transposed', 'expanded'])
def test_any_layout(change: str) -> None:
    torch.manual_seed(4)
    x, weight, bias, grad = (t.cuda().float() for t in draw_kernel((9, 4), (2, 12, 12)))
    if change == 'channels_last':
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    elif change == 'transposed':
        x, weight, grad = x.mT, weight.mT, grad.mT
    else:
        x, grad = (t[..., :1, :1].expand_as(t) for t in (x, grad))
    strided = evaluate_depthwise(cuda_backend, [x, weight, bias, grad], 5)
    dense = evaluate_depthwise(cuda_backend, [t.contiguous() for t in (x, weight, bias, grad)], 5)
    for name, found in strided.items():
        assert torch.equal(found, dense[name]), name
        assert found.is_contiguous(), name


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    x, weight, bias, _ = (t.cuda().float() for t in draw_kernel((13, 5), (2, 20, 20)))
    x.requires_grad_()
    with torch.autocast('cuda', dtype=dtype):
        found = depthwise_conv2d(x, weight, bias, backend='cuda')
    assert found.dtype == dtype
    exact = depthwise_conv2d(x, weight, bias, backend='cuda')
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()
    assert torch.autograd.grad(found.float().sum(), x)[0].dtype == torch.float32


def test_captured_and_compiled() -> None:
    torch.manual_seed(6)
    x, weight, bias, _ = (t.cuda().float() for t in draw_kernel((31, 9), (2, 33, 20)))

    def run(map_: Tensor) -> Tensor:
        return depthwise_conv2d(map_, weight, bias, backend='cuda')

    expected = run(x).clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(x)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(found, expected)
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    assert torch.equal(compiled(x), expected)


def test_who_takes_a_call() -> None:
    """``auto`` takes the kernel, and another backend where shared memory is too small."""
    call = Call('depthwise_conv2d', torch.device('cuda', 0), torch.float32, 51, 5)
    assert choose_backend('auto', call) == 'cuda'
    assert choose_backend('auto', call._replace(big_kernel=2001)) == 'torch'
    x, weight = torch.ones(1, 1, 4, 4, device='cuda'), torch.ones(1, 1, 601, 601, device='cuda')
    with pytest.raises(BackendUnavailableError, match='may have more than'):
        depthwise_conv2d(x, weight, backend='cuda')


def test_opcheck_and_flops() -> None:
    torch.manual_seed(7)
    x, weight, bias, grad = (t.cuda().requires_grad_() for t in draw_kernel((7, 4), (2, 5, 6)))
    operators = torch.ops.mmsw_cuda
    for flipped in (False, True):
        torch.library.opcheck(operators.depthwise_conv2d, (x, weight, bias, 5, flipped))
    torch.library.opcheck(operators.depthwise_conv2d_grad_weight, (grad, x, 7, 4, 5))
    with FlopCounterMode(display=False) as counter:
        depthwise_conv2d(x, weight, bias, backend='cuda').sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 7 * 4 * x.numel()
