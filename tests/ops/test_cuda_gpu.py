"""The cuda backend on a GPU: values, gradients, dtypes, streams, devices, limits."""

import pytest
import torch
import torch.nn.functional as F
from cuda_cases import ARMS, ROUNDING, SHAPES, SIZES, draw, draw_arms, evaluate, wrong_results
from torch import Tensor

from mmsw.ops import BackendUnavailableError, ShiftPattern, shift_add, shift_wise_conv2d
from mmsw.ops.backends import cuda_backend, torch_backend

if (reason := cuda_backend.unavailable_reason()) is not None:
    pytest.skip(f'cuda: {reason}', allow_module_level=True)


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_agrees_with_the_reference(sizes: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    pattern = ShiftPattern.draw(*sizes)
    on_gpu = ShiftPattern.draw(*sizes).cuda()
    for shape in SHAPES:
        tensors = draw(pattern, shape, dtype)
        expected = evaluate(torch_backend, pattern, tensors)
        found = evaluate(cuda_backend, on_gpu, [tensor.to('cuda', dtype) for tensor in tensors])
        assert not wrong_results(found, expected, dtype), shape


@pytest.mark.parametrize('pruned', [0.5, 0.9, 1.0])
@pytest.mark.parametrize('sizes', [(13, 3, 3, 1), (49, 3, 2, 1), (51, 5, 2, 4)], ids=str)
def test_pruned_patterns(sizes: tuple, pruned: float) -> None:
    torch.manual_seed(1)
    pattern = ShiftPattern.draw(*sizes)
    tensors = draw(pattern, (2, 40, 35), torch.float32)
    tensors[1][torch.rand(len(tensors[1])) < pruned] = 0
    expected = evaluate(torch_backend, pattern, tensors)
    found = evaluate(
        cuda_backend,
        ShiftPattern.draw(*sizes).cuda(),
        [tensor.cuda().float() for tensor in tensors],
    )
    assert not wrong_results(found, expected, torch.float32)


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('sizes', [(13, 3, 3, 1), (49, 3, 2, 4), (51, 5, 2, 2)], ids=str)
def test_the_gradient_of_masked_filters_is_zero(sizes: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    pattern = ShiftPattern.draw(*sizes)
    for shape in [(9, 7, 7), (2, 40, 35)]:
        x, weight, _, *grads = draw(pattern, shape, dtype)
        mask = torch.rand(len(weight)) < 0.3
        expected = torch_backend.shift_wise_conv2d_grad_weight(grads, x, pattern.tables(), mask)
        found = cuda_backend.shift_wise_conv2d_grad_weight(
            tuple(grad.to('cuda', dtype) for grad in grads),
            x.to('cuda', dtype),
            ShiftPattern.draw(*sizes).cuda().tables(),
            mask.cuda(),
        )
        assert not found[~mask.cuda()].any()
        assert not wrong_results(dict(grad=found), dict(grad=expected), dtype), shape


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
@pytest.mark.parametrize('arms', ARMS, ids=str)
def test_the_folded_form(arms: tuple, dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    for shape in SHAPES:
        x = torch.randn(shape[0], 2, *shape[1:]).to(dtype).double()
        wide, tall, bias = draw_arms(arms, 2, dtype)
        wide[0, : arms[0] // 2] = 0
        for own_bias in (bias, None):
            expected = torch_backend.cross_conv2d(x, wide, tall, own_bias)
            ours = (
                None if each is None else each.to('cuda', dtype)
                for each in (x, wide, tall, own_bias)
            )
            found = cuda_backend.cross_conv2d(*ours)
            assert not wrong_results(dict(out=found), dict(out=expected), dtype), shape


@pytest.mark.parametrize('change', ['channels_last', 'transposed', 'expanded'])
def test_any_layout(change: str) -> None:
    torch.manual_seed(2)
    pattern = ShiftPattern.draw(13, 3, 4, 2).cuda()
    tensors = [tensor.cuda() for tensor in draw(pattern, (2, 12, 12), torch.float32)]
    if change == 'channels_last':
        tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    elif change == 'transposed':
        tensors = [tensor.mT for tensor in tensors]
    else:
        tensors = [tensor[..., :1, :1].expand_as(tensor) for tensor in tensors]
    plain = evaluate(cuda_backend, pattern, [tensor.contiguous() for tensor in tensors])
    for name, found in evaluate(cuda_backend, pattern, tensors).items():
        assert torch.equal(found, plain[name]), name


def test_repeats_bit_for_bit() -> None:
    torch.manual_seed(3)
    pattern = ShiftPattern.draw(49, 3, 19, 4).cuda()
    tensors = [tensor.cuda().float() for tensor in draw(pattern, (8, 61, 70), torch.float32)]
    first = evaluate(cuda_backend, pattern, tensors)
    for _ in range(3):
        for name, found in evaluate(cuda_backend, pattern, tensors).items():
            assert torch.equal(found, first[name]), name


def test_gradients_through_autograd() -> None:
    pattern = ShiftPattern.draw(9, 3, 2, 2).cuda()
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, device='cuda', requires_grad=True)
    weight = torch.randn(6, 1, 3, 3, dtype=torch.float64, device='cuda', requires_grad=True)
    conv_out = torch.randn(1, 6, 5, 6, dtype=torch.float64, device='cuda', requires_grad=True)

    def fused(*tensors: Tensor) -> tuple[Tensor, ...]:
        return shift_wise_conv2d(*tensors, pattern, backend='cuda')

    def added(tensor: Tensor) -> tuple[Tensor, ...]:
        return shift_add(tensor, pattern, backend='cuda')

    # no nondet_tol: every gradient has to repeat exactly
    assert torch.autograd.gradcheck(fused, (x, weight))
    assert torch.autograd.gradgradcheck(fused, (x, weight))
    assert torch.autograd.gradcheck(added, (conv_out,))
    assert torch.autograd.gradgradcheck(added, (conv_out,))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2).cuda()
    x = torch.randn(2, 3, 9, 12, device='cuda', requires_grad=True)
    weight = torch.randn(15, 1, 3, 3, device='cuda', requires_grad=True)
    with torch.autocast('cuda', dtype=dtype):
        outputs = shift_wise_conv2d(x, weight, pattern, backend='cuda')
    assert [out.dtype for out in outputs] == [dtype] * 3
    grads = torch.autograd.grad(sum(out.float().sum() for out in outputs), (x, weight))
    assert [grad.dtype for grad in grads] == [torch.float32] * 2
    exact = shift_wise_conv2d(x, weight, pattern, backend='cuda')
    for found, expected in zip(outputs, exact, strict=True):
        assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_follows_the_current_stream() -> None:
    """The inputs are written late on a stream of their own; another stream would read NaN."""
    pattern = ShiftPattern.draw(49, 3, 8, 4).cuda()
    tensors = [tensor.cuda().float() for tensor in draw(pattern, (4, 64, 64), torch.float32)]
    expected = evaluate(cuda_backend, pattern, tensors)
    late = [torch.full_like(tensor, float('nan')) for tensor in tensors]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for target, source in zip(late, tensors, strict=True):
            target.copy_(source)
        found = evaluate(cuda_backend, pattern, late)
    stream.synchronize()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='two-gpus: needs a second GPU')
def test_runs_on_the_device_of_its_tensors() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2)
    tensors = draw(pattern, (2, 12, 9), torch.float32)
    expected = evaluate(torch_backend, pattern, tensors)
    with torch.cuda.device(0):
        found = evaluate(
            cuda_backend, pattern.to('cuda:1'), [tensor.to('cuda:1').float() for tensor in tensors]
        )
        assert torch.cuda.current_device() == 0
    assert {str(value.device) for value in found.values()} == {'cuda:1'}
    assert not wrong_results(found, expected, torch.float32)


def test_can_be_captured_in_a_graph() -> None:
    pattern = ShiftPattern.draw(13, 3, 3, 2).cuda()
    tensors = [tensor.cuda().float() for tensor in draw(pattern, (2, 20, 17), torch.float32)]
    expected = evaluate(cuda_backend, pattern, tensors)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = evaluate(cuda_backend, pattern, tensors)
    graph.replay()
    torch.cuda.synchronize()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def test_more_than_2_to_the_31_values() -> None:
    """Indices beyond 32 bits: the last planes of a map of more than 2**31 values."""
    batch = 2**31 // (64 * 1024 * 4) + 2
    values = batch * 4 * 64 * 1024
    free = torch.cuda.mem_get_info()[0]
    if free < 5 * 2 * values:
        pytest.skip(f'gpu-memory: needs {5 * 2 * values >> 30} GiB free, has {free >> 30}')
    pattern = ShiftPattern.draw(13, 3, 4, 2).cuda()
    x = torch.empty(batch, 4, 64, 1024, dtype=torch.float16, device='cuda').normal_()
    weight = torch.randn(20, 1, 3, 3, device='cuda').half()
    with torch.no_grad():
        outputs = shift_wise_conv2d(x, weight, pattern, backend='cuda')
        expected = shift_wise_conv2d(x[-1:].clone(), weight, pattern, backend='cuda')
    for found, target in zip(outputs, expected, strict=True):
        assert torch.equal(found[-1:], target)


@pytest.mark.parametrize(
    ('value', 'finite'), [(float('nan'), False), (float('inf'), False), (1.0, True)]
)
def test_a_bad_weight_spoils_its_own_channel_only(value: float, finite: bool) -> None:
    pattern = ShiftPattern.draw(13, 3, 5, 2).cuda()
    x = torch.randn(2, 5, 24, 21, device='cuda')
    weight = torch.randn(25, 1, 3, 3, device='cuda')
    weight[2 * pattern.num_groups + 1, 0, 1, 1] = value
    outputs = torch.stack(shift_wise_conv2d(x, weight, pattern, backend='cuda'))
    assert outputs[:, :, [0, 1, 3, 4]].isfinite().all()
    assert bool(outputs[:2, :, 2].isfinite().all()) == finite


def test_agrees_with_small_convolutions_and_shift_add() -> None:
    pattern = ShiftPattern.draw(49, 3, 6, 4).cuda()
    x = torch.randn(2, 6, 40, 33, dtype=torch.float64, device='cuda')
    weight = torch.randn(6 * pattern.num_groups, 1, 3, 3, dtype=torch.float64, device='cuda')
    conv_out = F.conv2d(x, weight, padding=2, groups=6)
    for found, expected in zip(
        shift_wise_conv2d(x, weight, pattern, backend='cuda'),
        shift_add(conv_out, pattern, backend='cuda'),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_tensor_on_the_cpu_is_refused() -> None:
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    with pytest.raises(BackendUnavailableError, match='it takes tensors on cuda, not on cpu'):
        shift_wise_conv2d(torch.ones(1, 2, 4, 4), torch.ones(4, 1, 3, 3), pattern, backend='cuda')


def test_an_unknown_dtype_is_refused() -> None:
    pattern = ShiftPattern.draw(5, 3, 2, 1).cuda()
    x = torch.ones(1, 2, 4, 4, device='cuda').to(torch.float8_e4m3fn)
    weight = torch.ones(4, 1, 3, 3, device='cuda').to(torch.float8_e4m3fn)
    with pytest.raises(TypeError, match='must hold float32, float64, float16 or bfloat16'):
        shift_wise_conv2d(x, weight, pattern, backend='cuda')
