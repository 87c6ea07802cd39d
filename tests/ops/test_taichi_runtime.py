"""How the taichi backend starts Taichi: when, in which process, with whose settings."""

import os
from pathlib import Path

import pytest
from operator_process import run_script

from mmsw.ops.backends import taichi_backend

needs_taichi = pytest.mark.skipif(
    taichi_backend.unavailable_reason() is not None,
    reason=f'taichi: {taichi_backend.unavailable_reason()}',
)


def run_python(script: str, **environment: str | None) -> str:
    """Output of a script in a process of its own that holds the operator only."""
    code, output = run_script(script, **environment)
    assert code == 0, output
    return output


CALL = (
    'import torch\n'
    'from mmsw.ops import ShiftPattern\n'
    'from mmsw.ops.backends import taichi_backend\n'
    'pattern = ShiftPattern.draw(3, 3, 1, 1)\n'
    'taichi_backend.shift_add(torch.ones(1, 1, 3, 3), pattern.tables())\n'
)


@needs_taichi
def test_starts_on_the_first_call_and_in_silence() -> None:
    script = CALL.replace(
        'pattern =',
        'torch.set_num_threads(1)\nassert taichi_backend.unavailable_reason() is None\n'
        "assert 'taichi' not in sys.modules\npattern =",
        1,
    )
    script += "import taichi\nassert taichi.cfg.cpu_max_num_threads == 1\nprint('end')\n"
    assert run_python(script) == 'end\n'


@needs_taichi
def test_denormal_numbers_are_left_alone() -> None:
    small = 'print((torch.tensor([1e-40]) * 1).ne(0).item())\n'
    assert run_python('import torch\n' + small + CALL + small) == 'True\nTrue\n'


FORK = (
    'import multiprocessing\n'
    'from mmsw.ops import available_backends, shift_add, use_backend\n'
    'import mmsw.ops.backends as table\n'
    'def child(_):\n'
    "    print(available_backends()['taichi'])\n"
    '    x = torch.ones(1, 1, 3, 3)\n'
    "    table._MODULES = {'taichi': taichi_backend, 'torch': table.torch_backend}\n"
    "    print(table.choose_backend('auto', table.Call('shift_add', x.device, x.dtype, 3, 3)))\n"
    '    try:\n'
    "        with use_backend('taichi'):\n"
    '            print(shift_add(x, pattern)[0].item())\n'
    '    except Exception as error:\n'
    '        print(type(error).__name__, error)\n'
    '    try:\n'
    '        taichi_backend.shift_add(x, pattern.tables())\n'
    '    except Exception as error:\n'
    '        print(type(error).__name__, error)\n'
    "process = multiprocessing.get_context('fork').Process(target=child, args=(0,))\n"
    'process.start()\n'
    'process.join(60)\n'
    'process.kill()\n'
    'print(process.exitcode)\n'
)


@needs_taichi
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='combination: no fork on this system')
def test_a_process_forked_from_one_that_started_taichi_refuses() -> None:
    available, auto, error, direct, code = run_python(CALL + FORK).splitlines()
    reason = 'this process was forked from one that had started Taichi, whose threads it lacks'
    assert available.startswith(reason)
    assert auto == 'torch'
    for line in (error, direct):
        assert line.startswith('BackendUnavailableError')
        assert reason in line
        assert "'spawn'" in line
        assert "backend='torch'" in line
    assert code == '0'


@needs_taichi
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='combination: no fork on this system')
def test_a_forked_process_may_start_taichi_itself() -> None:
    script = CALL[: CALL.index('taichi_backend.shift_add')] + FORK
    assert run_python(script).splitlines() == ['True', 'taichi', '1.0', '0']


END = (
    'import taichi as ti\n'
    "print(ti.cfg.offline_cache, ti.cfg.cpu_max_num_threads, ti.cfg.fast_math, 'end')\n"
)


@needs_taichi
@pytest.mark.parametrize(
    ('home', 'reason'),
    [
        (None, 'neither HOME nor XDG_CACHE_HOME is set'),
        ('/dev/null', "Not a directory: '/dev/null/.cache/taichi/ticache'"),
    ],
)
def test_runs_without_a_home_folder(home: str | None, reason: str, tmp_path: Path) -> None:
    environment = dict(HOME=home, XDG_CACHE_HOME=None, TMPDIR=str(tmp_path))
    environment.update(TI_OFFLINE_CACHE_FILE_PATH=None)
    call = 'import torch\ntorch.set_num_threads(1)\n' + CALL + END
    warning, end = run_python(call, **environment).splitlines()
    assert reason in warning
    assert 'Set TI_OFFLINE_CACHE_FILE_PATH' in warning
    assert end == 'False 1 False end'
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == []
    environment.update(TI_OFFLINE_CACHE_FILE_PATH=str(tmp_path / 'kernels'))
    assert run_python(call, **environment) == 'True 1 False end\n'
    assert list((tmp_path / 'kernels').glob('*.tic'))


@needs_taichi
def test_the_environment_of_the_user_comes_first() -> None:
    environment = dict(TI_OFFLINE_CACHE='0', TI_CPU_MAX_NUM_THREADS='2', TI_FAST_MATH='1')
    assert run_python(CALL + END, **environment) == 'False 2 True end\n'


@needs_taichi
def test_an_environment_that_taichi_cannot_take_is_named() -> None:
    script = (
        "from mmsw.ops import available_backends\nprint(available_backends()['taichi'])\ntry:\n"
    ) + ''.join(f'    {line}\n' for line in CALL.splitlines())
    script += 'except Exception as error:\n    print(type(error).__name__, error)\n'
    reason, error = run_python(script, TI_ARCH='vulkan').splitlines()
    assert reason == "TI_ARCH is 'vulkan'; set it to one of x64, arm64, cuda, or unset it"
    assert error.startswith('BackendUnavailableError')
    assert reason in error
    found = run_python(script, TI_CPU_MAX_NUM_THREADS='many')
    assert 'BackendUnavailableError' in found
    assert 'Taichi does not start' in found
    assert "'many'" in found


@needs_taichi
def test_keeps_a_runtime_that_the_program_started() -> None:
    script = (
        'import taichi as ti\n'
        'ti.init(arch=ti.cpu, random_seed=7)\n'
        'program = ti.lang.impl.get_runtime().prog\n'
    )
    script += CALL + "assert ti.lang.impl.get_runtime().prog is program\nprint('end')\n"
    assert run_python(script).endswith('end\n')


def test_reason_without_taichi() -> None:
    script = (
        'import importlib.util\n'
        'find = importlib.util.find_spec\n'
        "importlib.util.find_spec = lambda name, *a: None if name == 'taichi' else find(name, *a)\n"
        'from mmsw.ops.backends import taichi_backend\n'
        'print(taichi_backend.unavailable_reason())\n'
    )
    expected = 'the package taichi is not installed; install it with "pip install taichi"\n'
    assert run_python(script) == expected
