"""Tables that were exchanged behind the pattern: other layouts, none at all, spoilt ones."""

import copy
import importlib.util
import pickle

import pytest
import torch
from torch import Tensor

import mmsw.ops.pattern as pattern_module
from mmsw.ops import ShiftPattern, available_backends, shift_add, shift_wise_conv2d
from mmsw.ops.backends import cpp_backend


def exchanged(pattern: ShiftPattern, shift_hv: Tensor, identity_index: Tensor) -> ShiftPattern:
    """The pattern with other buffers, put there as they are; loading would put them in order."""
    pattern.shift_hv, pattern.identity_index = shift_hv, identity_index
    assert pattern.shift_hv is shift_hv
    return pattern


def results(pattern: ShiftPattern, backend: str) -> list[Tensor]:
    """Both operators and their gradients, in float64."""
    generator = torch.Generator().manual_seed(0)
    side, channels = pattern.small_kernel, pattern.channels
    kernels, border = channels * pattern.num_groups, 2 * pattern.margin
    x, weight, conv_out = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in [
            (2, channels, 9, 7),
            (kernels, 1, side, side),
            (2, kernels, 9 + border, 7 + border),
        ]
    )
    outputs = [
        *shift_wise_conv2d(x, weight, pattern, backend=backend),
        *shift_add(conv_out, pattern, backend=backend),
    ]
    grads = [torch.randn(out.shape, generator=generator, dtype=out.dtype) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, (x, weight, conv_out), grads)]


@pytest.mark.parametrize('change', ['strides', 'dtypes'])
def test_tables_of_another_layout_give_the_same_results(every_backend: str, change: str) -> None:
    pattern = ShiftPattern.draw(13, 3, 4, 2)
    expected = results(pattern, 'torch')
    shift_hv, identity_index = pattern.shift_hv, pattern.identity_index
    if change == 'strides':
        shift_hv, identity_index = (t.t().contiguous().t() for t in (shift_hv, identity_index))
        assert not shift_hv.is_contiguous()
    else:
        shift_hv, identity_index = shift_hv.long(), identity_index.int()
    exchanged(pattern, shift_hv, identity_index)
    assert [table.dtype for table in pattern.tables()[:2]] == [torch.int32, torch.int64]
    assert all(table.is_contiguous() for table in pattern.tables()[:2])
    for found, target in zip(results(pattern, every_backend), expected, strict=True):
        torch.testing.assert_close(found, target, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('change', ['strides', 'dtypes'])
def test_tables_of_another_layout_in_compiled_code(every_backend: str, change: str) -> None:
    pattern = ShiftPattern.draw(13, 3, 4, 2)
    x, weight = torch.randn(1, 4, 6, 5), torch.randn(4 * pattern.num_groups, 1, 3, 3)
    expected = shift_wise_conv2d(x, weight, pattern, backend='torch')
    shift_hv, identity_index = pattern.shift_hv, pattern.identity_index
    if change == 'strides':
        shift_hv, identity_index = (t.t().contiguous().t() for t in (shift_hv, identity_index))
    else:
        shift_hv, identity_index = shift_hv.long(), identity_index.int()
    exchanged(pattern, shift_hv, identity_index)
    torch.compiler.reset()
    call = torch.compile(
        lambda x, w: shift_wise_conv2d(x, w, pattern, backend=every_backend),
        backend='eager',
        fullgraph=True,
    )
    torch.testing.assert_close(call(x, weight), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('value', [0, -(10**6), 10**6])
def test_tables_that_were_never_filled_are_refused(every_backend: str, value: int) -> None:
    pattern = ShiftPattern.draw(13, 3, 4, 2).to('meta').to_empty(device='cpu')
    for table in pattern.buffers():
        table.fill_(value)  # what memory may hold
    for call in (
        lambda: shift_wise_conv2d(torch.ones(1, 4, 6, 6), torch.ones(20, 1, 3, 3), pattern),
        lambda: shift_add(torch.ones(1, 20, 8, 8), pattern),
    ):
        with pytest.raises(ValueError, match=r'the tables of ShiftPattern\(.*Were they filled\?'):
            call()
    for table, drawn in zip(
        pattern.buffers(), ShiftPattern.draw(13, 3, 4, 2).buffers(), strict=True
    ):
        table.copy_(drawn)
    torch.testing.assert_close(results(pattern, every_backend), results(pattern, 'torch'))


@pytest.mark.parametrize('value', [-(10**6), 10**6])
@pytest.mark.parametrize('spoilt', ['shift_hv', 'identity_index'])
def test_cpp_never_writes_outside_of_its_planes(spoilt: str, value: int) -> None:
    reason = available_backends()['cpp']
    if reason is not True:
        pytest.skip(f'cpp: {reason}')
    pattern = ShiftPattern.draw(13, 3, 4, 2)
    spoiled = pattern.tables()
    getattr(spoiled, spoilt)[-1, -1] = value
    x, weight, grads = (
        torch.ones(1, 4, 6, 6),
        torch.ones(20, 1, 3, 3),
        (torch.ones(1, 4, 6, 6),) * 3,
    )
    for name, tensors in (
        ('shift_wise_conv2d', (x, weight)),
        ('shift_wise_conv2d_grad_input', (grads, weight)),
        ('shift_wise_conv2d_grad_weight', (grads, x)),
        ('shift_add', (torch.ones(1, 20, 8, 8),)),
        ('shift_add_grad', (grads,)),
    ):
        operator = getattr(cpp_backend, name)
        with pytest.raises(ValueError, match='the tables hold no pattern: shifts must be 4'):
            operator(*tensors, spoiled)


def test_buffers_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    check = pattern_module._check_tables
    monkeypatch.setattr(
        pattern_module, '_check_tables', lambda *a: (checked.append(a), check(*a))[1]
    )
    pattern = ShiftPattern.draw(13, 3, 4, 2)
    checked.clear()
    for _ in range(3):
        results(pattern, 'torch')
    assert len(checked) == 1
    for other in (copy.deepcopy(pattern), pickle.loads(pickle.dumps(pattern))):
        torch.testing.assert_close(results(other, 'torch'), results(pattern, 'torch'))
    assert set(pattern.state_dict()) == {'shift_hv', 'identity_index', 'kernel_sizes'}


def test_a_pattern_of_a_module_that_was_run_again() -> None:
    """A notebook reloads the module: what was built before is of another class."""
    spec = importlib.util.spec_from_file_location(pattern_module.__name__, pattern_module.__file__)
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    assert anew.ShiftPattern is not ShiftPattern
    other = anew.ShiftPattern.draw(13, 3, 4, 2)
    found, expected = results(other, 'torch'), results(ShiftPattern.draw(13, 3, 4, 2), 'torch')
    assert all(map(torch.equal, found, expected))
