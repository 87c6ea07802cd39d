"""The one pass over the map of hidden units: bias, GELU, sums of squares."""

import math
from collections.abc import Callable

import pytest
import torch
from shift_wise_literal import relative_error
from torch import Tensor, nn

from mmsw.ops import bias_gelu, use_backend
from mmsw.ops.backends import cpp_backend

ROUNDING = {
    torch.float64: 1e-13,
    torch.float32: 3e-7,
    torch.float16: 6e-4,
    torch.bfloat16: 5e-3,
}
needs_cpp = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)


def exact_gelu(x: Tensor) -> Tensor:
    """In float64, also far below zero."""
    x = x.double()
    return 0.5 * x * torch.special.erfc(-x * math.sqrt(0.5))


def draw(positions: int, dtype: torch.dtype, batch: int = 2, units: int = 3) -> list[Tensor]:
    """A map, then a bias of its units and one of samples and units."""
    tables = torch.float64 if dtype == torch.float64 else torch.float32
    hidden = 2 * torch.randn(batch, units, positions).to(dtype)
    return [hidden, torch.randn(units, dtype=tables), torch.randn(batch, units, dtype=tables)]


def expected_of(hidden: Tensor, bias: Tensor, biases: Tensor) -> list[Tensor]:
    """In float64, with either bias: the map, its sums."""
    hidden, bias, biases = (t.double() for t in (hidden, bias, biases))
    plain, per_sample = exact_gelu(hidden + bias[:, None]), exact_gelu(hidden + biases[..., None])
    return [plain, plain.square().sum(2), per_sample, per_sample.square().sum(2)]


def found_of(hidden: Tensor, bias: Tensor, biases: Tensor) -> list[Tensor]:
    return [*bias_gelu(hidden.clone(), bias), *bias_gelu(hidden.clone(), biases)]


def assert_exact(dtype: torch.dtype, shapes: list[tuple[int, int, int]]) -> None:
    for batch, units, positions in shapes:
        tensors = draw(positions, dtype, batch, units)
        found = found_of(*tensors)
        sums = torch.float64 if dtype == torch.float64 else torch.float32
        assert [t.dtype for t in found] == [dtype, sums, dtype, sums]
        for index, (ours, exact) in enumerate(zip(found, expected_of(*tensors), strict=True)):
            bound = ROUNDING[sums if index in (1, 3) else dtype]
            assert relative_error(ours, exact) < bound, (positions, index)


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
def test_every_backend_is_exact(every_backend: str, dtype: torch.dtype) -> None:
    assert_exact(dtype, [(2, 3, 50), (1, 4, 9)])


@needs_cpp
@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
def test_every_instruction_set_is_exact(instructions: str, dtype: torch.dtype) -> None:
    # shorter than a vector, around groups of vectors and around the parts that sums are made of
    assert_exact(dtype, [(2, 3, p) for p in (1, 3, 16, 17, 47, 95, 96, 129, 1535, 1537, 4097)])


@needs_cpp
def test_gelu_in_float32_keeps_the_digits_of_values_far_below_zero(instructions: str) -> None:
    tiny = torch.logspace(-37, 0, 4096)
    x = torch.cat([torch.linspace(-14, 14, 1 << 17), tiny, -tiny])
    found = bias_gelu(x[None, None].clone(), torch.zeros(1))[0].flatten().double()
    error = ((found - exact_gelu(x)) / exact_gelu(x)).abs()
    for low, high, bound in (
        (0, 14, 2.2e-7),
        (-1, 0, 4e-7),
        (-3, -1, 1.2e-6),
        (-5, -3, 4e-6),
        (-6, -5, 2e-5),
    ):
        assert error[(low <= x) & (x <= high) & (x != 0)].max() < bound, (low, high)
    assert (found - exact_gelu(x))[x < -6].abs().max() < 1e-10
    assert not found[x < -11.7].any()


@pytest.mark.parametrize('dtype', list(ROUNDING), ids=str)
def test_values_that_are_no_numbers_are_those_of_torch(every_backend: str, dtype) -> None:
    values = [-math.inf, math.inf, math.nan, 0.0, -3e4, 3e4, torch.finfo(dtype).max]
    x = torch.tensor([values * 9], dtype=dtype)[None]
    found = bias_gelu(x.clone(), torch.zeros(1))[0]
    # some builds of torch give NaN for infinity in float32, in which half types are computed
    computed = torch.promote_types(dtype, torch.float32)
    plain = x.to(computed if every_backend == 'torch' else torch.float64)
    expected = nn.functional.gelu(plain).to(dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@needs_cpp
def test_a_number_that_is_none_stays_in_its_row() -> None:
    hidden = torch.randn(1, 3, 100)
    hidden[0, 1, 50] = math.nan
    mapped, sums = bias_gelu(hidden, torch.zeros(3))
    assert mapped.isnan().sum() == 1
    assert sums.isnan().tolist() == [[False, True, False]]


@needs_cpp
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_threads_and_repetition_change_no_bit(dtype: torch.dtype) -> None:
    tensors = draw(1234, dtype, units=40)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = found_of(*tensors)
        torch.set_num_threads(3)
        for _ in range(3):
            for ours, expected in zip(found_of(*tensors), one, strict=True):
                assert torch.equal(ours, expected)
    finally:
        torch.set_num_threads(threads)


@needs_cpp
def test_sums_of_long_rows_do_not_lose_digits() -> None:
    hidden = torch.full((1, 1, 1 << 21), 0.7)
    one = exact_gelu(torch.tensor(0.7)).square()
    found = bias_gelu(hidden, torch.zeros(1))[1]
    assert float(abs(found / ((1 << 21) * one) - 1)) < 1e-6


@needs_cpp
def test_the_compiled_pass_works_in_place() -> None:
    hidden, bias, _ = draw(33, torch.float32)
    assert bias_gelu(hidden, bias)[0] is hidden
    with torch.no_grad():  # parameters do not keep it from that
        version = hidden._version
        assert bias_gelu(hidden, nn.Parameter(bias))[0] is hidden
        assert hidden._version > version
    with torch.inference_mode():
        given = hidden.clone()
    assert bias_gelu(given, bias)[0] is given


def test_any_strides(every_backend: str) -> None:
    hidden, bias, biases = draw(21, torch.float32)
    strided = [
        hidden.mT.contiguous().mT,
        bias.repeat_interleave(2)[::2],
        biases.t().contiguous().t(),
    ]
    expected = expected_of(hidden, bias, biases)
    for ours, exact in zip(found_of(*strided), expected, strict=True):
        assert relative_error(ours, exact) < 3e-7
    kept = hidden[:, :1].expand(-1, 3, -1)  # rows that share their memory
    assert relative_error(bias_gelu(kept, bias)[0], exact_gelu(kept + bias[:, None])) < 3e-7


@pytest.mark.parametrize('shape', [(0, 3, 5), (2, 0, 5), (2, 3, 0)], ids=str)
def test_empty_maps(every_backend: str, shape: tuple[int, int, int]) -> None:
    batch, units, positions = shape
    hidden, *rest = draw(positions, torch.float32, batch, units)
    found = found_of(hidden, *rest)
    assert [tuple(t.shape) for t in found] == [shape, shape[:2], shape, shape[:2]]
    assert not found[1].any()


@pytest.mark.parametrize('hidden_dtype', [torch.bfloat16, torch.float32], ids=str)
def test_what_goes_with_a_map_may_be_of_another_type(every_backend: str, hidden_dtype) -> None:
    hidden, *rest = draw(40, hidden_dtype)
    rest = [t.to(torch.bfloat16 if hidden_dtype == torch.float32 else t.dtype) for t in rest]
    for ours, exact in zip(found_of(hidden, *rest), expected_of(hidden, *rest), strict=True):
        assert relative_error(ours, exact) < ROUNDING[hidden_dtype]


def test_gradients(every_backend: str) -> None:
    hidden, bias, biases = draw(5, torch.float64)
    for tensors in ([hidden, bias], [hidden, biases]):
        for wanted in range(2):  # of one at a time: then the other is a constant
            inputs = [t.clone().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
            assert torch.autograd.gradcheck(bias_gelu, inputs)
            assert all(torch.equal(a, b) for a, b in zip(inputs, tensors, strict=True))


@needs_cpp
def test_opcheck() -> None:
    hidden, _, biases = draw(7, torch.bfloat16)
    torch.library.opcheck(torch.ops.mmsw_cpp.bias_gelu_.default, (hidden.clone(), biases))


class Pass(nn.Module):
    def forward(self, hidden: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return bias_gelu(hidden + 0, bias)


def test_compiled_and_exported_programs_hold_plain_operators() -> None:
    hidden, bias, _ = draw(9, torch.float32)
    given = hidden.clone(), bias
    with torch.no_grad():
        expected = Pass()(*given)
        graphs = []

        def keep(graph: torch.fx.GraphModule, example: list) -> Callable:
            graphs.append(graph)
            return graph.forward

        torch.compiler.reset()
        compiled = torch.compile(Pass(), fullgraph=True, backend=keep)(*given)
        program = torch.export.export(Pass(), given)
        traced = torch.jit.trace(Pass(), given)
    for found in (compiled, program.module()(*given), traced(*given)):
        for ours, exact in zip(found, expected, strict=True):
            assert relative_error(ours, exact) < 3e-7
    assert torch.equal(given[0], hidden)
    assert graphs
    for text in (graphs[0].code, program.graph_module.code, str(traced.graph)):
        assert 'gelu' in text
        assert 'mmsw_cpp' not in text


def test_transforms_of_functions_use_plain_operators() -> None:
    hidden, *_, biases = draw(6, torch.float32)
    mapped, sums = torch.func.vmap(bias_gelu)(hidden[:, None], biases)
    exact, exact_sums = bias_gelu(hidden.clone(), biases)
    assert relative_error(mapped[:, 0], exact) < 3e-7
    assert relative_error(sums[:, 0], exact_sums) < 3e-7


def test_shapes_without_values() -> None:
    found = found_of(*(t.to('meta') for t in draw(6, torch.bfloat16)))
    assert [(t.device.type, t.dtype) for t in found[:2]] == [
        ('meta', torch.bfloat16),
        ('meta', torch.float32),
    ]
    assert [tuple(t.shape) for t in found[:2]] == [(2, 3, 6), (2, 3)]


def test_a_named_backend_is_taken() -> None:
    hidden, bias, _ = draw(6, torch.float32)
    with use_backend('torch'):
        assert bias_gelu(hidden, bias)[0] is not hidden
    assert bias_gelu(hidden, bias, backend='torch')[0] is not hidden
    if cpp_backend.unavailable_reason() is None:
        with use_backend('torch'):
            assert bias_gelu(hidden, bias, backend='cpp')[0] is hidden


@pytest.mark.parametrize('graded', [True, False])
def test_an_unknown_backend_is_refused(graded: bool) -> None:
    hidden, *_, bias, _ = draw(6, torch.float32)
    with pytest.raises(ValueError, match=r"^backend: unknown backend 'fast'; known are"):
        bias_gelu(hidden.requires_grad_(graded), bias, backend='fast')


BAD = [
    (0, lambda t: t.long(), TypeError, r'hidden must hold float32, .* got torch\.int64'),
    (0, lambda t: t[0], ValueError, r'hidden must be \[B, K, P\], got \[3, 5\]'),
    (1, lambda t: t.long(), TypeError, r'bias must hold float32, .* got torch\.int64'),
    (1, lambda t: t.tolist(), TypeError, 'bias must be a Tensor, got list'),
    (1, lambda t: t.to('meta'), ValueError, 'bias is on meta, the map on cpu; move one of them'),
    (1, lambda t: t[:2], ValueError, r'bias must be \[3\] or \[2, 3\] for hidden .*, got \[2\]'),
    (1, lambda t: t[:, None], ValueError, r'bias must be .* for hidden .*, got \[3, 1\]'),
]


@pytest.mark.parametrize(('index', 'spoil', 'error', 'message'), BAD)
def test_what_does_not_fit_is_refused(
    every_backend: str, index: int, spoil: Callable, error: type[Exception], message: str
) -> None:
    tensors = draw(5, torch.float32)[:2]
    tensors[index] = spoil(tensors[index])
    with pytest.raises(error, match=f'^{message}'):
        bias_gelu(*tensors)


@needs_cpp
def test_the_operators_themselves_refuse_what_does_not_fit() -> None:
    hidden, bias, _ = draw(5, torch.float32)
    library = torch.ops.mmsw_cpp
    with pytest.raises(ValueError, match=r'^hidden must be \[B, K, P\] and contiguous, got'):
        library.bias_gelu_(hidden.mT, bias)
    with pytest.raises(TypeError, match=r'^bias must hold Float, got Double$'):
        library.bias_gelu_(hidden, bias.double())
    with pytest.raises(ValueError, match=r'^bias does not fit hidden \[2, 3, 5\]'):
        library.bias_gelu_(hidden, bias[1:])
