"""Two linear layers with GELU and a response norm between them, with a gradient of their own."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from shift_wise_literal import relative_error
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from mmsw.errors import BackendUnavailableError
from mmsw.models.layers import GlobalResponseNorm
from mmsw.ops import backends, joined_samples
from mmsw.ops.backends import cpp_backend, torch_backend
from mmsw.ops.hidden_layer import Response, hidden_layer

MANY, FEW = 40, 3  # positions: the norm scales the weight, or the map
needs_cpp = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)


class Unfused(nn.Module):
    """The layers of a block, each by itself, at every position of an NCHW map."""

    def __init__(self, channels: int, response: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, 4 * channels)
        self.linear2 = nn.Linear(4 * channels, channels, bias=not response)
        self.response = GlobalResponseNorm(4 * channels) if response else nn.Identity()
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x.permute(0, 2, 3, 1))
        x = self.linear2(self.response(nn.functional.gelu(x)))
        return x.permute(0, 3, 1, 2)


class Fused(Unfused):
    """The same in one."""

    recompute = False
    backend = None

    def forward(self, x: Tensor) -> Tensor:
        grn, linear1, linear2 = self.response, self.linear1, self.linear2
        response = Response(grn.gamma, grn.beta, grn.eps) if hasattr(grn, 'gamma') else None
        out = hidden_layer(
            x.flatten(2),
            linear1.weight,
            linear1.bias,
            linear2.weight,
            linear2.bias,
            response,
            self.recompute,
            self.backend,
        )
        return out.unflatten(2, x.shape[2:])


@pytest.fixture(params=['joined', 'apart'])
def samples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One product for all samples of a batch, or one for each, whatever the size of the map."""
    limit = {'joined': 1 << 20, 'apart': 0}[request.param]
    monkeypatch.setattr(joined_samples, '_MANY_POSITIONS', limit)
    return request.param


def pair(channels: int, response: bool, dtype: torch.dtype) -> tuple[Unfused, Fused]:
    unfused, fused = Unfused(channels, response).double(), Fused(channels, response).to(dtype)
    fused.load_state_dict(unfused.state_dict())
    unfused.load_state_dict(fused.state_dict())  # what rounding left of it
    return unfused, fused


def results(module: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The output and the gradients of the map and of the parameters."""
    dtype = next(module.parameters()).dtype
    x = x.to(dtype).requires_grad_()
    out = module(x)
    found = torch.autograd.grad(out, [x, *module.parameters()], grad.to(out.dtype))
    return [out.detach(), *found]


@pytest.mark.parametrize('response', [True, False], ids=['response', 'plain'])
@pytest.mark.parametrize('positions', [MANY, FEW])
def test_equals_the_layers_one_by_one(
    every_backend: str, samples: str, positions: int, response: bool
) -> None:
    for dtype, bound in ((torch.float32, 2e-6), (torch.float64, 1e-13)):
        unfused, fused = pair(6, response, dtype)
        x, grad = torch.randn(2, 2, 6, positions, 2, dtype=torch.float64).to(dtype).double()
        for ours, exact in zip(results(fused, x, grad), results(unfused, x, grad), strict=True):
            assert ours.dtype == dtype
            assert relative_error(ours, exact) < bound


@pytest.mark.parametrize('response', [True, False], ids=['response', 'plain'])
@pytest.mark.parametrize('positions', [4, 1])
def test_gradients_of_any_order(
    every_backend: str, samples: str, positions: int, response: bool
) -> None:
    shapes = (2, 2, positions), (5, 2), (5,), (3, 5), (3,), *([(5,)] * 2 if response else [])
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def call(x: Tensor, *rest: Tensor) -> Tensor:
        norm = Response(*rest[4:]) if response else None
        return hidden_layer(x, *rest[:4], norm)

    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors, fast_mode=True)


@needs_cpp
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_pass_back_with_every_instruction_set(instructions: str, dtype: torch.dtype) -> None:
    for positions in (1, 15, 33, 129, 1600):
        grad, hidden = (3 * torch.randn(2, 2, 3, positions)).to(dtype)
        bias, factor = torch.randn(3), torch.randn(2, 3)
        bias, factor = (t.double() if dtype == torch.float64 else t for t in (bias, factor))
        wide = [t.double() for t in (grad, hidden, bias, factor)]
        expected = torch_backend.gelu_grad(*wide)
        # How much was added up, not what is left of it, bounds the error of a sum.
        scale = expected[0].abs().sum(2).max() / expected[1].abs().max().clamp(min=1e-9)
        ours, sums = cpp_backend.gelu_grad(grad, hidden, bias, factor)
        bound = {torch.float64: 1e-13, torch.float32: 4e-7, torch.bfloat16: 5e-3}[dtype]
        assert relative_error(ours, expected[0]) < bound
        assert relative_error(sums, expected[1]) < min(bound, 4e-7) * max(1, scale)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('response', [True, False], ids=['response', 'plain'])
def test_half_precision_inside_autocast(
    every_backend: str, samples: str, response: bool, dtype: torch.dtype
) -> None:
    unfused, fused = pair(6, response, torch.float32)
    x, grad = torch.randn(2, 2, 6, 5, 8)
    exact = results(unfused, x, grad)
    single = unfused.float()
    with torch.autocast('cpu', dtype=dtype):
        ours, theirs = results(fused, x, grad), results(single, x, grad)
        assert fused(x.to(dtype)).dtype == single(x.to(dtype)).dtype == dtype
        double = torch.randn(1, 6, 2, 2, dtype=torch.float64)  # autocast leaves it alone
        assert fused.double()(double).dtype == single.double()(double).dtype == torch.float64
    assert ours[0].dtype == theirs[0].dtype == dtype
    for found, other, target in zip(ours, theirs, exact, strict=True):
        assert found.dtype == other.dtype
        assert relative_error(found, target) < 2 * relative_error(other, target) + 5e-3


def test_recomputation_keeps_one_map_less_and_changes_no_bit(every_backend: str) -> None:
    _, fused = pair(6, True, torch.float32)
    x, grad = torch.randn(2, 2, 6, 5, 8)
    kept, found = [], []
    for fused.recompute in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            found.append(results(fused, x, grad))
        kept.append(sizes.count(2 * 24 * 40))
    assert kept == [2, 1]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class CountMaps(TorchDispatchMode):
    """How many maps of a size operators have made and are in memory at once, at most."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.most, self.found = size, 0, {}

    def alive(self) -> int:
        return sum(not storage.expired() for storage in self.found.values())

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for tensor in results if isinstance(results, tuple) else [results]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes() >= self.size:
                storage = StorageWeakRef(tensor.untyped_storage())
                self.found = {k: v for k, v in self.found.items() if not v.expired()}
                self.found.setdefault(storage.cdata, storage)
        self.most = max(self.most, self.alive())
        return results


@needs_cpp
@pytest.mark.parametrize('response', [True, False], ids=['response', 'plain'])
@pytest.mark.parametrize('positions', [200, 2])
def test_three_hidden_maps_are_in_memory_at_most(
    samples: str, positions: int, response: bool
) -> None:
    """Between the passes one or two of them, and nothing else as large."""
    _, fused = pair(6, response, torch.float32)
    x = torch.randn(64, 6, positions, 1, requires_grad=True)
    for fused.recompute in (False, True):
        with CountMaps(x.nbytes * 4) as maps:
            out = fused(x)
            assert maps.alive() == 2 - fused.recompute
            assert maps.most <= 3
            maps.most = 0
            out.sum().backward()
        assert maps.most == 3
        assert maps.alive() == 0


def test_units_that_are_silent_have_gradients(every_backend: str) -> None:
    _, fused = pair(3, True, torch.float32)
    with torch.no_grad():
        fused.linear1.weight.zero_()
        fused.linear1.bias.zero_()
    for found in results(fused, *torch.randn(2, 2, 3, 4, 4)):
        assert found.isfinite().all()


def test_only_gradients_that_are_asked_for_are_given() -> None:
    _, fused = pair(3, True, torch.float32)
    fused.requires_grad_(False)
    fused.response.gamma.requires_grad_()
    x = torch.randn(2, 3, 4, 4)
    fused(x).sum().backward()
    assert [name for name, p in fused.named_parameters() if p.grad is not None] == [
        'response.gamma'
    ]
    with torch.no_grad():
        assert relative_error(fused(x), fused.requires_grad_()(x)) < 1e-6


def test_compiled_and_exported_programs_hold_plain_operators() -> None:
    _, fused = pair(3, True, torch.float32)
    x = torch.randn(2, 3, 4, 4)
    graphs = []

    def keep(graph: torch.fx.GraphModule, example: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(fused, fullgraph=True, backend=keep)
    expected, grad = fused(x), torch.randn(2, 3, 4, 4)
    for ours, exact in zip(results(compiled, x, grad), results(fused, x, grad), strict=True):
        assert relative_error(ours, exact) < 2e-6
    program = torch.export.export(fused.eval(), (x,))
    assert relative_error(program.module()(x), expected) < 2e-6
    for text in (graphs[0].code, program.graph_module.code):
        assert 'gelu' in text
        assert 'mmsw' not in text


def test_the_backend_that_is_named_runs_both_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused = pair(3, True, torch.float32)
    x, grad = torch.randn(2, 2, 3, 4, 4)
    called = []

    def passes(name: str) -> dict[str, Callable]:
        def told(function: str) -> Callable:
            run = getattr(torch_backend, function)
            return lambda *args, **kwargs: called.append((name, function)) or run(*args, **kwargs)

        return {function: told(function) for function in ('bias_gelu', 'gelu_grad')}

    common = {'NEEDS_CHECK': False, 'refuses': lambda call: None}
    common['unavailable_reason'] = lambda: None
    for name, own in (('auto-takes', passes('auto-takes')), ('named', passes('named'))):
        monkeypatch.setitem(backends._MODULES, name, SimpleNamespace(**common, **own))
    monkeypatch.setitem(backends._MODULES, 'lacking', SimpleNamespace(**common))
    fastest = {'auto-takes': backends._MODULES['auto-takes'], **backends._MODULES}
    monkeypatch.setattr(backends, '_MODULES', fastest)
    monkeypatch.setattr(backends, '_chosen', {})
    for backend, runs in (('named', 'named'), ('lacking', 'auto-takes'), (None, 'auto-takes')):
        called.clear()
        fused.backend = backend
        results(fused, x, grad)
        assert called == [(runs, 'bias_gelu'), (runs, 'gelu_grad')]


def test_a_backend_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fused = pair(3, True, torch.float32)
    x = torch.randn(1, 3, 2, 2)
    fused.backend = 'fast'
    with pytest.raises(ValueError, match=r"^backend: unknown backend 'fast'; known are"):
        fused(x)
    fused.backend = 'cpp'
    monkeypatch.setattr(cpp_backend, 'unavailable_reason', lambda: 'it was not built')
    with pytest.raises(BackendUnavailableError, match="backend 'cpp' cannot run here: it was not"):
        fused(x)


def test_empty_batches_and_any_strides(every_backend: str) -> None:
    _, fused = pair(3, True, torch.float32)
    x = torch.randn(2, 4, 4, 3).permute(0, 3, 1, 2)
    assert relative_error(fused(x), fused(x.contiguous())) < 1e-6
    for found in results(fused, x[:0], x[:0]):
        assert not found.any()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'x': torch.zeros(2, 3)}, r'x must be \[B, C, P\], weight1 \[K, C\] and weight2'),
        ({'x': torch.zeros(1, 4, 2)}, r'weight1 must be \[5, 4\], got \[5, 3\]'),
        ({'bias1': torch.zeros(3)}, r'bias1 must be \[5\], got \[3\]'),
        ({'weight2': torch.zeros(2, 4)}, r'weight2 must be \[2, 5\], got \[2, 4\]'),
        ({'bias2': torch.zeros(5)}, r'bias2 must be \[2\], got \[5\]'),
        ({'response': Response(torch.zeros(5), torch.zeros(4))}, r'beta must be \[5\], got \[4\]'),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    given = {
        'x': torch.zeros(1, 3, 2),
        'weight1': torch.zeros(5, 3),
        'bias1': torch.zeros(5),
        'weight2': torch.zeros(2, 5),
    }
    with pytest.raises(ValueError, match=f'^{message}'):
        hidden_layer(**given | change)
