"""The checked front of the compiled operators, called directly as ``torch.ops.mmsw_cpp``."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from shift_wise_inputs import inputs
from shift_wise_literal import relative_error
from torch import Tensor

from mmsw.ops import ShiftPattern, cross_conv2d, shift_add, shift_wise_conv2d
from mmsw.ops.backends import cpp_backend, cuda_backend, torch_backend
from mmsw.ops.library import OPERATORS

pytestmark = pytest.mark.skipif(
    cpp_backend.unavailable_reason() is not None,
    reason=f'cpp: {cpp_backend.unavailable_reason()}',
)

PATTERN = ShiftPattern.draw(5, 3, 3, 2)
NAMES = [
    'shift_add',
    'shift_add_grad',
    'shift_wise_conv2d',
    'shift_wise_conv2d_grad_input',
    'shift_wise_conv2d_grad_weight',
    'cross_conv2d',
]


def arguments(name: str, dtype: torch.dtype = torch.float32, grad: bool = False) -> dict[str, Any]:
    """Arguments of an operator for ``PATTERN``, by name and in order."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape).to(dtype).requires_grad_(grad)

    if name == 'cross_conv2d':
        arms = dict(wide=random(3, 7, 3), tall=random(3, 5, 3), bias=random(3))
        return dict(x=random(2, 3, 4, 6), **arms)
    made: dict[str, Any] = {}
    if name == 'shift_add':
        made['conv_out'] = random(2, 6, 6, 8)
    if 'grad' in name:
        made |= {f'grad_{output}': random(2, 3, 4, 6) for output in 'hvi'}
    if name.endswith(('conv2d', 'grad_weight')):
        made['x'] = random(2, 3, 4, 6)
    if name.endswith(('conv2d', 'grad_input')):
        made['weight'] = random(6, 1, 3, 3)
    if 'conv2d' in name:
        made['mask'] = None
    return made | tables()


def tables() -> dict[str, Any]:
    return PATTERN.tables()._asdict()


def run(name: str, made: dict[str, Any]) -> list[Tensor]:
    found = getattr(torch.ops.mmsw_cpp, name)(*made.values())
    return [found] if isinstance(found, Tensor) else list(found)


def test_each_operator_has_a_kernel_for_the_cpu_only_and_derivatives() -> None:
    ask = torch._C._dispatch_has_computed_kernel_for_dispatch_key
    for name in NAMES:
        for key, expected in (('CPU', True), ('CUDA', False), ('AutogradCPU', True)):
            found = ask(f'mmsw_cpp::{name}', key)
            assert found == expected, (name, key)
    assert set(OPERATORS) <= set(NAMES)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', NAMES)
def test_opcheck(name: str, dtype: torch.dtype) -> None:
    made = arguments(name, dtype, grad=True)
    if 'mask' in made and dtype == torch.float32:
        made['mask'] = torch.tensor([True, False] * 3)
    torch.library.opcheck(getattr(torch.ops.mmsw_cpp, name).default, tuple(made.values()))


@pytest.mark.parametrize('name', NAMES)
def test_derivatives_of_derivatives(name: str) -> None:
    made = arguments(name, torch.float64, grad=True)
    count = sum(isinstance(value, Tensor) and value.requires_grad for value in made.values())
    tensors, rest = list(made.values())[:count], list(made.values())[count:]
    operator, fast = getattr(torch.ops.mmsw_cpp, name), dict(fast_mode=True)
    assert torch.autograd.gradcheck(lambda *given: operator(*given, *rest), tensors, **fast)
    assert torch.autograd.gradgradcheck(lambda *given: operator(*given, *rest), tensors, **fast)


def test_only_gradients_that_are_asked_for_are_computed() -> None:
    made = arguments('shift_wise_conv2d')
    for wanted, others in (('x', 'grad_weight'), ('weight', 'grad_input')):
        leaf = made[wanted].clone().requires_grad_()
        out = run('shift_wise_conv2d', {**made, wanted: leaf})[1].sum()
        with torch.profiler.profile() as profile:
            torch.autograd.grad(out, leaf)
        names = {event.key for event in profile.key_averages()}
        assert f'mmsw_cpp::shift_wise_conv2d_{others}' not in names
        assert len([name for name in names if name.startswith('mmsw_cpp::')]) == 1


def test_a_mask_leaves_out_gradients_of_any_order() -> None:
    x, weight = inputs(PATTERN, 2, 4, 6)
    mask = torch.tensor([True, False, True, True, False, False])
    grads = [torch.randn_like(x).requires_grad_() for _ in range(3)]
    outputs = run('shift_wise_conv2d', dict(x=x, weight=weight, mask=mask, **tables()))
    found = torch.autograd.grad(outputs, weight, grads, create_graph=True)[0]
    exact = torch_backend.shift_wise_conv2d_grad_weight(tuple(grads), x, PATTERN.tables())
    kept = mask.view(-1, 1, 1, 1)
    assert relative_error(found, exact.where(kept, 0)) < 1e-12
    assert torch.equal(found == 0, (~kept).expand_as(found))
    again = torch.autograd.grad(found.sum(), [x, *grads])
    ones = torch.ones_like(weight).where(kept, 0)
    expected = torch_backend.shift_wise_conv2d(x, ones, PATTERN.tables())
    for ours, target in zip(again[1:], expected, strict=True):
        assert relative_error(ours, target) < 1e-12


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'cross_conv2d'])
def test_any_integer_tables_and_any_strides(name: str) -> None:
    """Tables that were cut out of larger ones gave numbers that were off by tens."""
    made = arguments(name)
    expected = run(name, made)
    for key, value in made.items():
        if isinstance(value, Tensor):
            made[key] = torch.stack([value, value], dim=-1)[..., 0]  # every second element
            assert not made[key].is_contiguous()
    made['shift_hv'], made['identity_index'] = made['shift_hv'].long(), made['identity_index'].int()
    for found, target in zip(run(name, made), expected, strict=True):
        assert torch.equal(found, target)
        assert found.is_contiguous()


@pytest.mark.parametrize('name', NAMES)
def test_empty_batch(name: str) -> None:
    made = arguments(name, grad=True)
    for key in ('x', 'conv_out', 'grad_h', 'grad_v', 'grad_i'):
        if key in made:
            made[key] = made[key][:0]
    shapes = [list(out.shape) for out in run(name, arguments(name))]
    for found, shape in zip(run(name, made), shapes, strict=True):
        whole = name.endswith('grad_weight')
        assert list(found.shape) == (shape if whole else [0, *shape[1:]])
        assert not whole or not found.count_nonzero()
    sum(out.sum() for out in run(name, made)).backward()


BAD = [
    ('x', lambda x: x[0], ValueError, r'^x must be \[B, 3, H, W\] with H, W >= 1, got'),
    ('x', lambda x: x[:, :2], ValueError, r'^x must be \[B, 3, H'),
    ('x', lambda x: x[:, :, :0], ValueError, r'^x must be .* got \[2, 3, 0, 6\]'),
    ('x', lambda x: x.long(), TypeError, '^x must hold float32, float64, float16 or bfloat16, got'),
    ('weight', lambda w: w[1:], ValueError, r'^weight must be \[6, 1, 3, 3\], got \[5, 1, 3, 3\]'),
    ('weight', lambda w: w.double(), TypeError, '^weight must hold Float as the map does, got D'),
    ('conv_out', lambda x: x[..., :2], ValueError, r'^conv_out must be \[B, 6, H \+ 2, W \+ 2\]'),
    ('grad_v', lambda g: g[..., :5], ValueError, r'^grad_v must be \[2, 3, 4, 6\], got'),
    ('grad_i', lambda g: g[:1], ValueError, r'^grad_i must be \[2, 3, 4, 6\], got \[1, 3, 4, 6\]'),
    ('grad_i', lambda g: g.half(), TypeError, '^grad_i must hold Float as the map does, got Half'),
    ('mask', lambda _: torch.ones(6), TypeError, '^mask must hold bool, got Float'),
    ('mask', lambda _: torch.ones(5).bool(), ValueError, r'^mask must be \[6\], one value per'),
    ('shift_hv', lambda t: t[:3], ValueError, r'^shift_hv must be \[6, 4\] for identity_index'),
    ('shift_hv', lambda t: t[0], ValueError, r'^shift_hv must be \[C \* nk, 2 \* R\] and identity'),
    ('shift_hv', lambda t: t.float(), TypeError, '^shift_hv must hold int32 or int64, got Float'),
    ('shift_hv', lambda t: t + 1, ValueError, 'no pattern: shifts must be 0, -3, ... down to -3,'),
    ('shift_hv', lambda t: t.long() + 2**32, ValueError, '^the tables hold no pattern'),
    ('shift_hv', lambda t: t * 1000, ValueError, 'were they ever filled'),
    ('identity_index', lambda t: t + 2, ValueError, 'identity groups must be of their channel'),
    ('identity_index', lambda t: t.long() - 2**40, ValueError, '^the tables hold no pattern'),
    ('identity_index', lambda t: t[:0], ValueError, r'and identity_index \[C, R\], got'),
    ('small_kernel', lambda _: 4, ValueError, '^small_kernel must be odd and 1 <= small_kernel'),
    ('small_kernel', lambda _: -1, ValueError, r'<= big_kernel < 2\*\*30, got -1 and 5'),
    ('small_kernel', lambda _: 7, ValueError, 'got 7 and 5'),
    ('big_kernel', lambda _: 2**40, ValueError, 'got 3 and 1099511627776'),
    ('big_kernel', lambda _: 7, ValueError, r'^shift_hv must be \[9, 4\] .* and 3 groups per'),
]


@pytest.mark.parametrize(('key', 'spoil', 'error', 'message'), BAD)
def test_what_does_not_fit_is_refused(
    key: str, spoil: Any, error: type[Exception], message: str
) -> None:
    names = [name for name in NAMES if name != 'cross_conv2d' and key in arguments(name)]
    assert names
    for name in names:
        made = arguments(name)
        made[key] = spoil(made[key])
        with pytest.raises(error, match=message):
            run(name, made)


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(x=torch.ones(1, 3, 0, 5)), ValueError, r'^x must be \[B, C, H, W\] with C, H, W >='),
        (dict(x=torch.ones(1, 3, 4, 5).int()), TypeError, '^x must hold float32'),
        (dict(wide=torch.ones(3, 4, 3)), ValueError, r'^wide must be \[3, taps, N\] with odd taps'),
        (dict(tall=torch.ones(3, 5, 5)), ValueError, r'^tall must be .* got \[3, 5, 5\]'),
        (dict(tall=torch.ones(3, 5, 3).double()), TypeError, '^tall must hold Float as the map'),
        (dict(bias=torch.ones(2)), ValueError, r'^bias must be \[3\], got \[2\]'),
    ],
)
def test_what_does_not_fit_a_cross_is_refused(
    change: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run('cross_conv2d', arguments('cross_conv2d') | change)


@pytest.mark.parametrize('name', NAMES)
def test_other_devices_are_refused(name: str) -> None:
    """A map on the CPU and a weight on the meta device gave memory that nobody had written."""
    operator = getattr(torch.ops.mmsw_cpp, name).default
    kernel = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    for made in (arguments(name), arguments(name, grad=True)):
        first, *others = (key for key, value in made.items() if isinstance(value, Tensor))
        for key in others:
            given = (made | {key: made[key].to('meta')}).values()
            with pytest.raises(ValueError, match=f'^{key} is on meta, the map on cpu; move one of'):
                operator(*given)
            with pytest.raises(ValueError, match=r'is on (meta|cpu), the map on (meta|cpu); move'):
                operator.redispatch(kernel, *given)
        with pytest.raises(ValueError, match='is on cpu, the map on meta; move one of them with'):
            operator(*(made | {first: made[first].to('meta')}).values())


def test_other_devices_are_refused_on_every_backend(every_backend: str) -> None:
    x, arm, bias = torch.ones(1, 3, 4, 6), torch.ones(3, 5, 3), torch.ones(3)
    for key, change in dict(
        wide=(x, arm.to('meta'), arm), tall=(x, arm, arm.to('meta')), bias=(x, arm, arm)
    ).items():
        with pytest.raises(ValueError, match=f'^{key} is on meta, the map on cpu; move one of'):
            cross_conv2d(*change, bias.to('meta') if key == 'bias' else None)
    made = arguments('shift_wise_conv2d')
    with pytest.raises(ValueError, match=r'^weight is on meta, the map on cpu; move one'):
        OPERATORS['shift_wise_conv2d'](
            *(made | dict(weight=made['weight'].to('meta'))).values(), every_backend
        )


def test_types_that_no_backend_takes(every_backend: str) -> None:
    """They passed the check of the sizes, and each backend failed in a way of its own."""
    quarter = torch.float8_e4m3fn
    x, weight = torch.ones(2, 3, 4, 6).to(quarter), torch.ones(6, 1, 3, 3).to(quarter)
    message = 'must hold float32, float64, float16 or bfloat16, got torch.float8_e4m3fn$'
    with pytest.raises(TypeError, match=f'^x {message}'):
        shift_wise_conv2d(x, weight, PATTERN)
    with pytest.raises(TypeError, match=f'^conv_out {message}'):
        shift_add(torch.ones(2, 6, 6, 8).to(quarter), PATTERN)
    with pytest.raises(TypeError, match=f'^x {message}'):
        cross_conv2d(x, torch.ones(3, 5, 3).to(quarter), torch.ones(3, 5, 3).to(quarter))
    with torch.autocast('cpu'):  # they are cast first
        assert shift_wise_conv2d(x, weight, PATTERN)[0].dtype == torch.bfloat16


def test_transforms_of_functions_use_plain_operators() -> None:
    """They ended in an error about an internal class, or in tangents that were zero."""
    x, weight = (tensor.detach() for tensor in inputs(PATTERN, 2, 4, 6))

    def loss(x: Tensor, weight: Tensor) -> Tensor:
        return sum(out.sin().sum() for out in shift_wise_conv2d(x, weight, PATTERN, backend='cpp'))

    leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
    expected = torch.autograd.grad(loss(*leaves), leaves)
    found = torch.func.grad(loss, argnums=(0, 1))(x, weight)
    for ours, target in zip(found, expected, strict=True):
        assert relative_error(ours, target) < 1e-12
    several = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(x[:, None], weight)
    assert relative_error(several[:, 0], expected[0]) < 1e-12
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(loss(dual, weight)).tangent
        with pytest.raises(RuntimeError, match=r"none in forward mode; use backend='torch'"):
            torch.ops.mmsw_cpp.shift_wise_conv2d(dual, weight, None, *PATTERN.tables())
    assert tangent.item() == pytest.approx(expected[0].sum().item())
    arms = torch.ones(3, 5, 3, dtype=x.dtype), torch.ones(3, 3, 3, dtype=x.dtype)
    found = torch.func.grad(lambda x: cross_conv2d(x, *arms).sum())(x)
    assert found[:, :, 2, 3].eq(3 * 5 + 9).all()
    conv_out = torch.ones(2, 6, 6, 8)
    assert torch.func.grad(lambda x: shift_add(x, PATTERN)[2].sum())(conv_out).sum() == 2 * 6 * 24


def test_transforms_of_the_operators_themselves_are_refused() -> None:
    made = arguments('shift_wise_conv2d')
    x, *rest = made.values()
    with pytest.raises(RuntimeError, match=r'have no derivatives for torch\.func and none in'):
        torch.func.grad(lambda x: torch.ops.mmsw_cpp.shift_wise_conv2d(x, *rest)[0].sum())(x)


def test_copies_of_a_layer_give_the_same_gradients() -> None:
    x, weight = inputs(PATTERN, 2, 4, 6)
    expected = torch.autograd.grad(shift_wise_conv2d(x, weight, PATTERN, 'cpp')[0].sum(), weight)
    for pattern in (copy.deepcopy(PATTERN), pickle.loads(pickle.dumps(PATTERN))):
        found = torch.autograd.grad(shift_wise_conv2d(x, weight, pattern, 'cpp')[0].sum(), weight)
        assert torch.equal(found[0], expected[0])


def test_shapes_for_compilers_are_those_of_the_kernels() -> None:
    for name in NAMES:
        made = arguments(name)
        meta = {
            key: value.to('meta') if isinstance(value, Tensor) else value
            for key, value in made.items()
        }
        for found, expected in zip(run(name, meta), run(name, made), strict=True):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


def test_cuda_can_be_asked_while_a_compiler_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked for its library then, which ended in ``Unsupported: import``."""
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend='eager')
    def ask(x: Tensor) -> Tensor:
        return x + 1 if cuda_backend.unavailable_reason() is None else x - 1

    with_gpu = SimpleNamespace(
        version=SimpleNamespace(cuda='13.0'), cuda=SimpleNamespace(is_available=lambda: True)
    )
    monkeypatch.setattr(cuda_backend, 'torch', with_gpu)
    monkeypatch.setattr(cuda_backend, '_reason', None)
    assert ask(torch.zeros(())).item() == 1
    monkeypatch.setattr(cuda_backend, '_reason', 'it was not compiled')
    assert ask(torch.zeros(())).item() == -1
