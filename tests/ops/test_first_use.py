"""A backend that compares itself with torch before its first use: who takes it, who is told."""

import logging
import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import mmsw.ops.backends as table
from mmsw.ops import BackendUnavailableError, ShiftPattern, shift_add, shift_wise_conv2d
from mmsw.ops.backends import first_use, torch_backend
from mmsw.ops.backends.call import Call

FUNCTIONS = [
    'shift_add',
    'shift_add_grad',
    'shift_wise_conv2d',
    'shift_wise_conv2d_grad_input',
    'shift_wise_conv2d_grad_weight',
]


class Unproven:
    """A backend for the CPU that is compared first, and counts the calls of its functions.

    Args:
        spoil: Function to what is done to its results.
    """

    NEEDS_CHECK = True

    def __init__(self, **spoil: Callable[[Tensor], Tensor]) -> None:
        self.spoil = spoil
        self.calls: list[str] = []
        self.asked = 0

    def unavailable_reason(self) -> str | None:
        self.asked += 1
        return None

    def refuses(self, call: Call) -> str | None:
        return None if call.device.type == 'cpu' else 'it takes tensors on cpu'

    def __getattr__(self, name: str):
        if name not in FUNCTIONS:
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append(name)
            results = getattr(torch_backend, name)(*arguments)
            spoil = self.spoil.get(name, lambda result: result)
            return tuple(map(spoil, results)) if isinstance(results, tuple) else spoil(results)

        return call


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Unproven], Unproven]]:
    """Puts a backend in front of torch, in a process that has not seen it yet."""
    monkeypatch.setattr(first_use, '_verdicts', {})
    monkeypatch.setattr(first_use, '_passed', set())
    monkeypatch.setattr(table, '_told', set())

    def put(backend: Unproven) -> Unproven:
        monkeypatch.setattr(table, '_MODULES', {'new': backend, 'torch': torch_backend})
        monkeypatch.setattr(table, '_chosen', {})
        return backend

    return put


def run(backend: str | None = None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 4, 4).to(dtype), torch.randn(4, 1, 3, 3).to(dtype)
    return shift_wise_conv2d(x, weight, pattern, backend=backend)


@pytest.mark.parametrize('backend', [None, 'new'])
def test_a_backend_that_is_right_is_compared_once(install, backend: str | None) -> None:
    new = install(Unproven())
    expected = run('torch')
    found = run(backend)
    assert set(new.calls) == set(FUNCTIONS)
    assert new.calls.count('shift_wise_conv2d') == 2  # the comparison and the call
    run(backend)
    assert new.calls.count('shift_wise_conv2d') == 3
    assert all(map(torch.equal, found, expected))


def test_every_dtype_and_side_is_compared(install) -> None:
    new = install(Unproven())
    run(dtype=torch.bfloat16)
    assert new.calls.count('shift_add_grad') == 2  # float32 and bfloat16
    run()
    assert new.calls.count('shift_add_grad') == 3
    shift_add(torch.ones(1, 2, 9, 9), ShiftPattern.draw(7, 5, 1, 1))
    assert new.calls.count('shift_add_grad') == 4


def test_the_global_random_state_stays(install) -> None:
    install(Unproven())
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    call = Call('shift_add', torch.device('cpu'), torch.float16, 13, 3, 1)
    assert first_use.find_problem('new', table._MODULES['new'], call) is None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_modes_of_the_caller_do_not_reach_the_comparison(install) -> None:
    new = install(Unproven())
    with torch.inference_mode(), torch.autocast('cpu', dtype=torch.bfloat16):
        run()
    assert set(new.calls) == set(FUNCTIONS)
    assert None in first_use._verdicts.values()


WRONG = [
    ({name: lambda result: result * 1.01}, rf'its {name}\b.* differs from that of torch by ')
    for name in FUNCTIONS
]
WRONG += [
    ({'shift_add': lambda result: result * torch.nan}, 'its shift_add .* differs .* by nan'),
    ({'shift_add': lambda result: result[:, :1]}, 'its shift_add .* differs .* by inf'),
    ({'shift_add': lambda result: 1 / 0}, 'it raises ZeroDivisionError: division by zero'),
]


@pytest.mark.parametrize(('spoil', 'message'), WRONG)
def test_a_backend_that_is_wrong_is_left_out_with_one_warning(
    install, caplog: pytest.LogCaptureFixture, spoil: dict, message: str
) -> None:
    install(Unproven(**spoil))
    expected = run('torch')
    with caplog.at_level(logging.WARNING, logger='mmsw.ops'):
        for _ in range(2):
            assert all(map(torch.equal, run(), expected))
    (record,) = caplog.records
    text = record.getMessage()
    assert re.fullmatch(
        f"mmsw: 'auto' leaves out backend 'new' on cpu: on a tiny map of torch.float32 {message}.*",
        text,
    )
    assert '\n' not in text
    with pytest.raises(
        BackendUnavailableError, match=f"backend 'new' cannot run here: .*{message}"
    ):
        run('new')


def test_a_compiler_takes_what_has_passed_before(install) -> None:
    """While a program is traced nothing can be compared: torch takes the place."""
    new = install(Unproven())
    torch.compiler.reset()
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(4, 1, 3, 3)
    expected = shift_wise_conv2d(x, weight, pattern, backend='torch')
    full = torch.compile(
        lambda x, w: shift_wise_conv2d(x, w, pattern), backend='eager', fullgraph=True
    )
    outputs = full(x, weight)
    assert new.calls == []
    assert new.asked == 0
    torch.testing.assert_close(outputs, expected)

    shift_wise_conv2d(x, weight, pattern)
    new.calls.clear()
    torch.compiler.reset()
    torch.testing.assert_close(full(x, weight), expected)
    # older releases do not tell compiling from exporting, which always takes torch
    tells = hasattr(torch.compiler, 'is_exporting')
    assert new.calls == (['shift_wise_conv2d'] if tells else [])


def test_a_traced_program_holds_plain_operators(install) -> None:
    new = install(Unproven())
    torch.compiler.reset()
    pattern = ShiftPattern.draw(5, 3, 2, 1)
    traced = torch.jit.trace(
        lambda x, w: shift_wise_conv2d(x, w, pattern, backend='new'),
        (torch.randn(1, 2, 4, 4), torch.randn(4, 1, 3, 3)),
        check_trace=False,
    )
    assert new.calls == []
    assert 'mmsw::' not in str(traced.graph)


def test_meta_tensors_need_no_comparison(install) -> None:
    new = install(Unproven())
    pattern = ShiftPattern.draw(5, 3, 2, 1).to('meta')
    x, weight = torch.empty(1, 2, 4, 4, device='meta'), torch.empty(4, 1, 3, 3, device='meta')
    assert shift_wise_conv2d(x, weight, pattern)[0].is_meta
    assert new.calls == []


def call_of(
    function: str, dtype: torch.dtype, side: int, reps: int = 1, big: int | None = None
) -> Call:
    return Call(function, torch.device('cuda'), dtype, big or 2 * side, side, reps)


def test_auto_keeps_sizes_from_a_backend_that_cannot_take_them(install) -> None:
    class Small(Unproven):
        NEEDS_CHECK = False

        def refuses(self, call: Call) -> str | None:
            return 'too large' if call.small_kernel > 3 else None

    small = install(Small())
    pattern = ShiftPattern.draw(5, 5, 1, 1)
    x, weight = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 5, 5)
    shift_wise_conv2d(x, weight, pattern)
    assert small.calls == []
    run()
    assert small.calls == ['shift_wise_conv2d']


def test_a_size_that_is_too_large_is_no_fault_of_the_backend(install) -> None:
    class Small(Unproven):
        def refuses(self, call: Call) -> str | None:
            too_large = call.small_kernel > 3 and call.function != 'shift_add'
            return 'a side of 5 is too large' if too_large else None

    small = install(Small())
    pattern = ShiftPattern.draw(5, 5, 1, 1)
    assert len(shift_add(torch.ones(1, 1, 8, 8), pattern)) == 3
    assert small.calls.count('shift_add') == 2
    message = "backend 'new' cannot run this call: a side of 5 is too large. Use backend='torch'"
    with pytest.raises(BackendUnavailableError, match=message):
        shift_wise_conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 5, 5), pattern, backend='new')
