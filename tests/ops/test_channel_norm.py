"""Layer norm over the channels of a map as it lies in memory, with a gradient of its own."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from shift_wise_literal import relative_error
from torch import Tensor, nn

from mmsw.models.layers import LayerNorm2d
from mmsw.ops import use_backend
from mmsw.ops.backends import cpp_backend
from mmsw.ops.channel_norm import channel_norm

ROUNDING = {
    torch.float64: 1e-13,
    torch.float32: 1e-6,
    torch.float16: 6e-4,
    torch.bfloat16: 5e-3,
}
EPS = 1e-6
needs_cpp = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)


def draw(shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Map, weight, bias, gradient of the norm; the channels differ in mean and size."""
    channels = shape[1]
    sizes = torch.linspace(0.2, 3, channels, dtype=torch.float64).unsqueeze(1)
    tensors = [
        torch.randn(shape, dtype=torch.float64) * sizes + sizes.flip(0),
        1 + 0.3 * torch.randn(channels, dtype=torch.float64),
        torch.randn(channels, dtype=torch.float64),
        torch.randn(shape, dtype=torch.float64),
    ]
    return [tensor.to(dtype) for tensor in tensors]


def literal(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = EPS) -> Tensor:
    """The formula, in float64."""
    x = x.double()
    centred = x - x.mean(1, keepdim=True)
    out = centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()
    if weight is not None:
        out = out * weight.double().unsqueeze(1)
    return out if bias is None else out + bias.double().unsqueeze(1)


def with_grads(function: Callable, tensors: list[Tensor]) -> list[Tensor]:
    """What a function of map, weight and bias gives, and their gradients."""
    *inputs, grad = tensors
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    out = function(*inputs)
    return [out, *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def assert_exact(shape: tuple[int, int, int], dtype: torch.dtype, slack: float = 1) -> None:
    tensors = draw(shape, dtype)
    found = with_grads(channel_norm, tensors)
    expected = with_grads(literal, [tensor.double() for tensor in tensors])
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert relative_error(ours, exact) < slack * ROUNDING[dtype], shape
    assert found[0].is_contiguous()
    with torch.no_grad():
        assert torch.equal(channel_norm(*tensors[:3]), found[0])


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
def test_every_backend_is_exact(every_backend: str, dtype: torch.dtype) -> None:
    slack = 8 if every_backend == 'torch' else 1  # it rounds half precision more often
    for shape in ((2, 5, 49), (3, 24, 1), (1, 3, 9)):
        assert_exact(shape, dtype, slack)


@needs_cpp
@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
def test_every_instruction_set_is_exact(instructions: str, dtype: torch.dtype) -> None:
    # shorter than a vector, whole vectors, several blocks of which the last one is short
    for shape in ((2, 7, 3), (1, 8, 16), (2, 6, 49), (1, 96, 1100), (1, 1500, 37), (1, 20000, 20)):
        assert_exact(shape, dtype)


@needs_cpp
def test_a_mean_far_from_zero_costs_no_digits(instructions: str) -> None:
    x = 1000 + torch.randn(1, 768, 64)  # float32 holds 1000 to 3e-5
    inputs = [x, torch.ones(768), torch.zeros(768), torch.randn(1, 768, 64)]
    found, expected = (with_grads(f, inputs) for f in (channel_norm, literal))
    for ours, exact, bound in zip(found, expected, (3e-7, 3e-5, 3e-5, 3e-7), strict=True):
        assert relative_error(ours, exact) < bound
    assert not channel_norm(torch.full((1, 768, 3), 1234.567)).any()


@needs_cpp
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_threads_and_repetition_change_no_bit(dtype: torch.dtype) -> None:
    tensors = draw((3, 40, 4100), dtype)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = with_grads(channel_norm, tensors)
        torch.set_num_threads(3)
        for _ in range(3):
            for ours, expected in zip(with_grads(channel_norm, tensors), one, strict=True):
                assert torch.equal(ours, expected)
    finally:
        torch.set_num_threads(threads)


@needs_cpp
def test_a_number_that_is_none_stays_at_its_position() -> None:
    x, weight, bias, grad = draw((1, 6, 40), torch.float32)
    x[0, 2, 17], x[0, 3, 20] = torch.nan, torch.inf
    out, grad_x, *_ = with_grads(channel_norm, [x, weight, bias, grad])
    for tensor in (out, grad_x):
        assert tensor.isnan().any(1).flatten().nonzero().flatten().tolist() == [17, 20]


@pytest.mark.parametrize(
    ('change', 'contiguous'),
    [
        (lambda t: t.mT.contiguous().mT, False),
        (lambda t: torch.cat([t, t], 1)[:, : t.shape[1]], True),
        (lambda t: torch.cat([t, t], 2)[:, :, 3 : 3 + t.shape[2]], True),
        (lambda t: t[:1].expand(3, -1, -1), True),
        (lambda t: t[:, :, :1].expand(-1, -1, 4), False),
    ],
)
def test_any_strides(every_backend: str, change: Callable, contiguous: bool) -> None:
    x, weight, bias, grad = draw((2, 6, 50))
    x, grad = change(x), change(grad)
    assert (x.stride(2) == 1) == contiguous
    found = with_grads(channel_norm, [x, weight, bias, grad])
    for ours, exact in zip(found, with_grads(literal, [x, weight, bias, grad]), strict=True):
        assert relative_error(ours, exact) < 1e-13


@pytest.mark.parametrize('shape', [(0, 3, 5), (2, 3, 0)], ids=str)
def test_empty_maps(every_backend: str, shape: tuple[int, int, int]) -> None:
    out, grad_x, grad_weight, grad_bias = with_grads(channel_norm, draw(shape))
    assert out.shape == grad_x.shape == shape
    assert not grad_weight.any()
    assert not grad_bias.any()


def test_without_weight_and_bias(every_backend: str) -> None:
    x, weight, _, grad = draw((2, 6, 20))
    for given in ((None, None), (weight, None)):
        inputs = [t.clone().requires_grad_() for t in (x, *given) if t is not None]
        found = channel_norm(*inputs, eps=1e-3)
        expected = literal(*inputs, *[None] * (3 - len(inputs)), eps=1e-3)
        assert relative_error(found, expected) < 1e-13
        for ours, exact in zip(
            torch.autograd.grad(found, inputs, grad),
            torch.autograd.grad(expected, inputs, grad),
            strict=True,
        ):
            assert relative_error(ours, exact) < 1e-13


def test_gradients_of_any_order(every_backend: str) -> None:
    x, weight, bias, _ = draw((2, 4, 5))
    for wanted in ((0, 1, 2), (0,), (1,), (2,)):  # what is frozen gets none
        inputs = [t.clone().requires_grad_(i in wanted) for i, t in enumerate((x, weight, bias))]
        assert torch.autograd.gradcheck(channel_norm, inputs)
        assert torch.autograd.gradgradcheck(channel_norm, inputs)
        channel_norm(*inputs).sum().backward()
        assert [t.grad is not None for t in inputs] == [i in wanted for i in range(3)]


def test_the_map_is_overwritten_only_where_it_may_be(every_backend: str) -> None:
    x, weight, bias, _ = draw((2, 6, 20), torch.float32)
    expected = literal(x, weight, bias)
    for given, keep in ((x.clone(), True), (x.clone().requires_grad_(), False)):
        before = given.detach().clone()
        assert relative_error(channel_norm(given, weight, bias, keep=keep), expected) < 1e-6
        assert torch.equal(given, before)
    if every_backend == 'cpp':
        version = x._version
        assert channel_norm(x, nn.Parameter(weight).detach(), bias, keep=False) is x
        assert x._version > version
        assert relative_error(x, expected) < 1e-6
        with torch.inference_mode():
            given = expected.float()
            assert channel_norm(given, keep=False) is given


def test_weights_of_another_type(every_backend: str) -> None:
    x, *_ = draw((2, 6, 20), torch.bfloat16)
    _, weight, bias, grad = draw((2, 6, 20), torch.float32)
    found = with_grads(channel_norm, [x, weight, bias, grad])
    assert [t.dtype for t in found] == [x.dtype, x.dtype, weight.dtype, bias.dtype]
    for ours, exact in zip(found, with_grads(literal, [x, weight, bias, grad]), strict=True):
        assert relative_error(ours, exact) < 4e-2


@needs_cpp
def test_opcheck() -> None:
    x, weight, bias, grad = draw((2, 6, 20), torch.bfloat16)
    weight, bias = weight.float(), bias.float()
    library = torch.ops.mmsw_cpp
    torch.library.opcheck(library.channel_norm.default, (x, weight, None, EPS))
    torch.library.opcheck(library.channel_norm_.default, (x.clone(), None, bias, EPS))
    _, mean, rstd = library.channel_norm(x, weight, bias, EPS)
    torch.library.opcheck(library.channel_norm_grad.default, (grad, x, weight, mean, rstd))


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = LayerNorm2d(6)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + channel_norm(x.flatten(2), keep=False).view(x.shape)


def test_compiled_and_exported_programs_hold_plain_operators() -> None:
    norm, x = Norm(), torch.randn(2, 6, 3, 4)
    with torch.no_grad():
        expected, graphs = norm(x), []

        def keep(graph: torch.fx.GraphModule, example: list) -> Callable:
            graphs.append(graph)
            return graph.forward

        torch.compiler.reset()
        compiled = torch.compile(norm, fullgraph=True, backend=keep)(x)
        program = torch.export.export(norm, (x,))
        traced = torch.jit.trace(norm, x)
    for found in (compiled, program.module()(x), traced(x)):
        assert relative_error(found, expected) < 2e-6
    for text in (graphs[0].code, program.graph_module.code, str(traced.inlined_graph)):
        assert 'layer_norm' in text
        assert 'mmsw_cpp' not in text


def test_transforms_of_functions_use_plain_operators() -> None:
    x, weight, bias, grad = draw((2, 4, 5))
    expected, grad_x, *_ = with_grads(channel_norm, [x, weight, bias, grad])
    mapped = torch.func.vmap(channel_norm, (0, None, None))(x[:, None], weight, bias)
    assert relative_error(mapped[:, 0], expected) < 1e-13
    found = torch.func.grad(lambda x: (channel_norm(x, weight, bias) * grad).sum())(x)
    assert relative_error(found, grad_x) < 1e-13
    out, slope = torch.func.jvp(lambda x: channel_norm(x, weight, bias), (x,), (grad,))
    assert relative_error(out, expected) < 1e-13
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, grad)
        found = torch.autograd.forward_ad.unpack_dual(channel_norm(dual, weight, bias))
    assert relative_error(found.tangent, slope) < 1e-13


def test_shapes_without_values() -> None:
    x, weight, bias, _ = (t.to('meta') for t in draw((2, 6, 20), torch.bfloat16))
    out = channel_norm(x, weight, bias)
    assert (out.device.type, out.dtype, out.shape) == ('meta', x.dtype, x.shape)


def test_a_named_backend_is_taken() -> None:
    x, *_ = draw((2, 6, 20))
    with use_backend('torch'):
        assert channel_norm(x, keep=False) is not x


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('autocast', [False, True])
def test_the_module_keeps_the_layout_and_the_type(layout: torch.memory_format, autocast) -> None:
    norm = Norm().norm
    x = torch.randn(2, 6, 5, 7, dtype=torch.bfloat16 if autocast else torch.float32)
    x = x.contiguous(memory_format=layout).requires_grad_()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        out = norm(x)
        plain = F.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias, norm.eps)
    assert out.dtype == plain.dtype == x.dtype
    assert out.is_contiguous(memory_format=layout)
    assert relative_error(out, plain.permute(0, 3, 1, 2)) < ROUNDING[x.dtype]
    out.sum().backward()
    assert x.grad.is_contiguous(memory_format=layout)
    assert norm.weight.grad.dtype == torch.float32


BAD = [
    (0, lambda t: t.long(), TypeError, r'x must hold float32, .* got torch\.int64'),
    (0, lambda t: t[0], ValueError, r'x must be \[B, C, P\], got \[3, 5\]'),
    (1, lambda t: t.long(), TypeError, r'weight must hold float32, .* got torch\.int64'),
    (1, lambda t: t[1:], ValueError, r'weight must be \[3\] for x \[2, 3, 5\], got \[2\]'),
    (2, lambda t: t.to('meta'), ValueError, 'bias is on meta, the map on cpu; move one of them'),
    (2, lambda t: t[:, None], ValueError, r'bias must be \[3\] for x .*, got \[3, 1\]'),
]


@pytest.mark.parametrize(('index', 'spoil', 'error', 'message'), BAD)
def test_what_does_not_fit_is_refused(
    every_backend: str, index: int, spoil: Callable, error: type[Exception], message: str
) -> None:
    tensors = draw((2, 3, 5))[:3]
    tensors[index] = spoil(tensors[index])
    with pytest.raises(error, match=f'^{message}'):
        channel_norm(*tensors)


@needs_cpp
def test_the_operators_themselves_refuse_what_does_not_fit() -> None:
    x, weight, bias, grad = draw((2, 3, 5), torch.float32)
    library = torch.ops.mmsw_cpp
    with pytest.raises(ValueError, match=r'^x must be \[B, C, P\] with the positions side by side'):
        library.channel_norm(x.mT, None, None, EPS)
    with pytest.raises(ValueError, match=r'^x must be contiguous, got strides'):
        library.channel_norm_(x[:, :2], None, None, EPS)
    with pytest.raises(TypeError, match=r'^weight must hold Float, got Double$'):
        library.channel_norm(x, weight.double(), bias, EPS)
    _, mean, rstd = library.channel_norm(x, weight, bias, EPS)
    with pytest.raises(ValueError, match=r'^mean must be \[2, 5\] and contiguous, got \[2, 4\]'):
        library.channel_norm_grad(grad, x, weight, mean[:, 1:], rstd)
    with pytest.raises(ValueError, match=r'^grad must be \[2, 3, 5\], got \[2, 2, 5\]'):
        library.channel_norm_grad(grad[:, 1:], x, weight, mean, rstd)


def test_third_derivatives() -> None:
    """Those of torch's own layer norm are wrong."""
    x = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)

    def slope(x: torch.Tensor) -> torch.Tensor:
        (grad,) = torch.autograd.grad(channel_norm(x).pow(3).sum(), x, create_graph=True)
        return grad

    assert torch.autograd.gradgradcheck(slope, x)


def test_the_pass_back_keeps_its_backend() -> None:
    x = torch.randn(2, 5, 9, requires_grad=True)
    (expected,) = torch.autograd.grad(channel_norm(x).square().sum(), x)
    loss = channel_norm(x).pow(2).sum()
    with torch.autograd.forward_ad.dual_level():
        (found,) = torch.autograd.grad(loss, x)
    assert torch.allclose(found, expected, atol=1e-5)
