"""The backend table: who is there, who is chosen, and what a wrong name gets."""

import importlib
import subprocess

import pytest
import torch
from operator_process import run_script

import mmsw.ops.backends as table
from mmsw.ops import (
    BackendUnavailableError,
    ShiftPattern,
    available_backends,
    cross_conv2d,
    shift_add,
    shift_wise_conv2d,
    use_backend,
)
from mmsw.ops.backends import choose_backend, torch_backend
from mmsw.ops.backends.call import Call


class StandIn:
    """A backend whose outputs can be told apart, or that cannot run for a reason."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    def __getattr__(self, name: str):
        return getattr(torch_backend, name)

    def unavailable_reason(self) -> str | None:
        return self.reason

    def refuses(self, call: Call) -> str | None:
        return None

    def shift_wise_conv2d(self, *arguments):
        return tuple(7 + 0 * out for out in torch_backend.shift_wise_conv2d(*arguments))

    def shift_add(self, *arguments):
        return tuple(7 + 0 * out for out in torch_backend.shift_add(*arguments))


@pytest.fixture
def add_backend(monkeypatch: pytest.MonkeyPatch):
    """Puts backends in front of the others and takes them out again."""

    def add(**backends: StandIn) -> None:
        monkeypatch.setattr(table, '_MODULES', {**backends, 'torch': torch_backend})
        monkeypatch.setattr(table, '_chosen', {})

    return add


def run_python(script: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs a script in a process of its own that holds the operator only, none of OpenMMLab."""
    return subprocess.CompletedProcess([], *run_script(script, **variables))


def call_shift_add(backend: str | None = None) -> float:
    pattern = ShiftPattern.draw(3, 3, 1, 1)
    return shift_add(torch.ones(1, 1, 3, 3), pattern, backend=backend)[0].item()


def call_shift_wise_conv2d(backend: str | None = None) -> float:
    pattern = ShiftPattern.draw(3, 3, 1, 1)
    x, weight = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 3)
    return shift_wise_conv2d(x, weight, pattern, backend=backend)[0].item()


CALLS = [call_shift_add, call_shift_wise_conv2d]


def test_the_reference_is_always_there() -> None:
    backends = available_backends()
    assert set(backends) == {'torch', 'cpp', 'taichi', 'cuda'}
    assert backends['torch'] is True
    for name, answer in backends.items():
        assert answer is True or (isinstance(answer, str) and answer), name


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('name', ['cpp', 'cuda', 'taichi'])
def test_an_absent_backend_gives_its_reason(call, name: str) -> None:
    reason = available_backends()[name]
    if reason is True:
        pytest.skip(f'no-backend: {name} runs here')
    with pytest.raises(BackendUnavailableError) as caught:
        call(name)
    assert f"backend: backend '{name}' cannot run here: {reason}." in str(caught.value)


def test_table_states_reasons(add_backend) -> None:
    add_backend(fast=StandIn(), lame=StandIn('no compiler was found'))
    assert available_backends() == {
        'fast': True,
        'lame': 'no compiler was found',
        'torch': True,
    }


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('backend', [None, 'auto', 'torch'])
def test_calls_run_on_the_reference(call, backend: str | None) -> None:
    assert call(backend) == 1


@pytest.mark.parametrize('call', CALLS)
def test_auto_takes_the_first_that_can_run(call, add_backend) -> None:
    add_backend(lame=StandIn('no compiler was found'), fast=StandIn())
    assert call() == call('auto') == call('fast') == 7
    assert call('torch') == 1


@pytest.mark.parametrize('call', CALLS)
def test_a_named_backend_never_falls_back(call, add_backend) -> None:
    add_backend(lame=StandIn('no compiler was found'))
    message = (
        "^backend: backend 'lame' cannot run here: no compiler was found. "
        "Use backend='torch', which always runs, or 'auto'.$"
    )
    with pytest.raises(BackendUnavailableError, match=message):
        call('lame')
    with (
        pytest.raises(BackendUnavailableError, match=r"^use_backend: backend 'lame'"),
        use_backend('lame'),
    ):
        pytest.fail('the block must not be entered')
    assert call() == 1


class WithoutCross:
    """A backend for a small side, without the folded form."""

    NEEDS_CHECK = False
    shift_wise_conv2d = staticmethod(torch_backend.shift_wise_conv2d)

    def unavailable_reason(self) -> str | None:
        return None

    def refuses(self, call: Call) -> str | None:
        return f'a side of {call.small_kernel} is above 3' if call.small_kernel > 3 else None


def call_cross(backend: str | None = None, taps: int = 5, side: int = 3) -> float:
    x, arm = torch.ones(1, 1, 1, 1), torch.ones(1, taps, side)
    return cross_conv2d(x, arm, torch.ones(1, 1, side), backend=backend).item()


def test_the_folded_form_falls_back_where_a_named_backend_lacks_it(add_backend) -> None:
    add_backend(lacking=WithoutCross())
    assert call_cross('lacking') == 2
    with use_backend('lacking'):
        assert call_cross() == 2
    add_backend(cuda=StandIn('no GPU'))
    with pytest.raises(BackendUnavailableError, match=r"^backend: backend 'cuda' cannot run here"):
        call_cross('cuda')


def test_sizes_that_a_backend_cannot_take(add_backend) -> None:
    pattern = ShiftPattern.draw(5, 5, 1, 1)
    x, weight = torch.ones(1, 1, 1, 1), torch.ones(1, 1, 5, 5)
    add_backend(small=WithoutCross())
    assert shift_wise_conv2d(x, weight, pattern)[0].item() == 1
    message = (
        "^backend: backend 'small' cannot run this call: a side of 5 is above 3. "
        "Use backend='torch', which always runs, or 'auto'.$"
    )
    with pytest.raises(BackendUnavailableError, match=message):
        shift_wise_conv2d(x, weight, pattern, backend='small')


def test_the_sizes_of_the_folded_form_are_asked_about(add_backend) -> None:
    calls = []

    class Asked(StandIn):
        def refuses(self, call: Call) -> str | None:
            calls.append(call)
            return None if call.big_kernel < 9 else 'the arm is too long'

    add_backend(asked=Asked())
    assert call_cross(taps=7) == call_cross(taps=9) == 2
    assert [(c.function, c.big_kernel, c.small_kernel) for c in calls] == [
        ('cross_conv2d', 7, 3),
        ('cross_conv2d', 9, 3),
    ]
    with pytest.raises(BackendUnavailableError, match='the arm is too long'):
        call_cross('asked', taps=9)


def test_the_first_question_may_come_from_a_compiler(add_backend) -> None:
    class Lazy(StandIn):
        def unavailable_reason(self) -> str | None:
            return None if importlib.import_module('json') else 'nothing'  # untraceable

    add_backend(lazy=Lazy())
    torch.compiler.reset()
    pattern = ShiftPattern.draw(3, 3, 1, 1)
    compiled = torch.compile(
        lambda x, w: shift_wise_conv2d(x, w, pattern, backend='lazy'),
        backend='eager',
        fullgraph=True,
    )
    assert compiled(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 3, 3))[0].item() == 7


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('name', ['numpy', '', 'Torch'])
def test_unknown_name(call, name: str) -> None:
    known = r"known are \['cpp', 'cuda', 'taichi', 'torch'\] and \"auto\""
    with pytest.raises(ValueError, match=f'^backend: unknown backend {name!r}; {known}$'):
        call(name)
    with (
        pytest.raises(ValueError, match=f'^use_backend: unknown backend {name!r}; {known}$'),
        use_backend(name),
    ):
        pytest.fail('the block must not be entered')


def test_use_backend_nests(add_backend) -> None:
    add_backend(lame=StandIn('no compiler was found'), fast=StandIn())
    assert choose_backend(None) == 'fast'
    with use_backend('torch'):
        assert choose_backend(None) == choose_backend('auto') == 'torch'
        assert choose_backend('fast') == 'fast'
        with use_backend('fast'):
            assert call_shift_add() == call_shift_wise_conv2d() == 7
        assert call_shift_add() == call_shift_wise_conv2d() == 1
        with use_backend('auto'):
            assert choose_backend(None) == 'fast'
        assert choose_backend(None) == 'torch'
    assert choose_backend(None) == 'fast'


def test_use_backend_is_undone_by_an_exception(add_backend) -> None:
    add_backend(fast=StandIn())
    with pytest.raises(KeyError), use_backend('torch'):
        raise KeyError
    assert choose_backend(None) == 'fast'


def test_gradients_use_the_backend_of_the_forward(add_backend) -> None:
    class Recorder(StandIn):
        calls: list[str] = []

        def __getattr__(self, name: str):
            if 'grad' in name:
                self.calls.append(name)
            return super().__getattr__(name)

    add_backend(fast=Recorder())
    pattern = ShiftPattern.draw(5, 3, 1, 1)
    x, weight = torch.ones(1, 1, 3, 3).requires_grad_(), torch.ones(2, 1, 3, 3).requires_grad_()
    outputs = shift_wise_conv2d(x, weight, pattern)
    conv_out = torch.ones(1, 2, 5, 5).requires_grad_()
    added = shift_add(conv_out, pattern)
    with use_backend('torch'):
        outputs[0].sum().backward()
        added[0].sum().backward()
    assert sorted(Recorder.calls) == [
        'shift_add_grad',
        'shift_wise_conv2d_grad_input',
        'shift_wise_conv2d_grad_weight',
    ]


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        ('', 'fast'),
        ('torch', 'torch'),
        (
            'numpy',
            'mmsw.errors.UnknownBackendError: use_backend or MMSW_BACKEND: '
            "unknown backend 'numpy'; known are",
        ),
    ],
)
def test_environment_variable(value: str, expected: str) -> None:
    done = run_python(
        'import mmsw.ops.backends as table\n'
        "table._MODULES = {'fast': table.torch_backend, **table._MODULES}\n"
        "print(table.choose_backend('fast'))\n"
        'print(table.choose_backend(None))\n',
        MMSW_BACKEND=value,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == 'fast'
    assert lines[-1].startswith(expected)
    assert (done.returncode == 0) == (value != 'numpy')


CALL_TWICE = (
    'import logging\n'
    'import torch\n'
    'import mmsw.ops.backends as table\n'
    'from mmsw.ops import ShiftPattern, shift_add, shift_wise_conv2d\n'
    "table._MODULES['cpp'].unavailable_reason = lambda: {reason}\n"
    'pattern = ShiftPattern.draw(5, 3, 1, 1)\n'
    'call = lambda: shift_wise_conv2d(torch.ones(1, 1, 4, 4), torch.ones(2, 1, 3, 3), pattern)\n'
)


def test_a_slower_backend_is_said_once() -> None:
    """Neither at import, nor where a compiler traces the call."""
    done = run_python(
        CALL_TWICE.format(reason="'it was not compiled (no compiler); do this'")
        + "print('imported')\n"
        "torch.compile(call, backend='eager', fullgraph=True)()\n"
        "print('compiled')\n"
        'call(), call()\n'
        'shift_add(torch.ones(1, 2, 6, 6), pattern)\n'
    )
    assert done.returncode == 0, done.stdout
    assert sorted(done.stdout.splitlines()) == [
        'compiled',
        'imported',
        "mmsw: the operators run on backend 'torch', which is slower than 'cpp' on the CPU; 'cpp' "
        'cannot run here: it was not compiled (no compiler); do this. MMSW_BACKEND=torch silences '
        'this line',
    ]


@pytest.mark.parametrize(
    ('reason', 'variables'),
    [
        ("'it was not compiled'", {'MMSW_BACKEND': 'torch'}),
        ('None', {}),
    ],
    ids=['torch is named', 'cpp is there'],
)
def test_nothing_is_said_of_a_backend_that_was_chosen(reason: str, variables: dict) -> None:
    calls = CALL_TWICE.format(reason=reason) + 'table.choose_backend(None)\n'
    calls += "call() if table.choose_backend(None) == 'torch' else None\n"
    done = run_python(calls, **variables)
    assert (done.returncode, done.stdout) == (0, '')


def test_the_chosen_backend_is_logged_once(
    add_backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(table, '_told', set())
    add_backend(fast=StandIn())
    with caplog.at_level('INFO', logger='mmsw.ops'):
        call_shift_add()
        call_shift_wise_conv2d()
        call_shift_add('torch')
    assert [record.getMessage() for record in caplog.records] == [
        "backend 'fast' runs the operators on cpu",
        "backend 'torch' runs the operators on cpu",
    ]


def test_import_is_light() -> None:
    done = run_python(
        'import torch\n'
        'before = set(sys.modules)\n'
        'import mmsw.ops\n'
        "assert 'mmsw.ops.library' in sys.modules\n"
        'from mmsw.ops import available_backends\n'
        'available_backends()\n'
        "heavy = {'taichi', 'mmengine', 'mmcv', 'mmseg', 'mmdet', 'cv2', 'torch._dynamo'}\n"
        'print(sorted(heavy & {name for name in set(sys.modules) - before}))\n'
        'print(torch.cuda.is_initialized())\n'
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines() == ['[]', 'False']
