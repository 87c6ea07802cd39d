"""What the tools do with errors, exit codes and output that nobody reads."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import mmsw
from mmsw.apis import UsageError
from mmsw.apis.cli import run_interruptible, run_measurement, run_reporting_errors
from mmsw.checkpoint import CheckpointError
from mmsw.datasets import DataError
from mmsw.engine.hooks import SparsityLostError
from mmsw.errors import MmswError, SparsityChangedError, SparsityError
from mmsw.ops import BackendUnavailableError, use_backend

ROOT = Path(__file__).resolve().parents[1]


def run_script(text: str, *command: str, **variables: str) -> subprocess.CompletedProcess:
    """Runs Python code, or a shell command that starts it as ``"$PYTHON" -c "$CODE"``."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), **variables}
    environment |= {'PYTHON': sys.executable, 'CODE': text}
    return subprocess.run(
        command or [sys.executable, '-c', text],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_error_of_the_package_is_one_that_tools_report() -> None:
    found = set()
    for module in pkgutil.walk_packages(mmsw.__path__, 'mmsw.'):
        try:
            content = vars(importlib.import_module(module.name))
        except ImportError:  # of an optional package
            continue
        found |= {
            value
            for value in content.values()
            if inspect.isclass(value)
            and issubclass(value, Exception)
            and value.__module__.startswith('mmsw.')
        }
    assert {UsageError, SparsityLostError} < found
    assert [kind for kind in found if not issubclass(kind, MmswError)] == []


@pytest.mark.parametrize(
    ('kind', 'base'),
    [
        (UsageError, ValueError),
        (CheckpointError, ValueError),
        (DataError, ValueError),
        (SparsityError, ValueError),
        (SparsityLostError, RuntimeError),
        (SparsityChangedError, RuntimeError),
        (BackendUnavailableError, RuntimeError),
    ],
)
def test_errors_come_out_as_one_line(kind: type, base: type, capsys) -> None:
    def run() -> None:
        raise kind('this is wrong:\n  found: a\n  expected: b')

    assert issubclass(kind, base)
    assert run_reporting_errors(run) == 2
    assert capsys.readouterr().err == 'error: this is wrong: found: a expected: b\n'


def test_other_errors_are_faults_and_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_reporting_errors(lambda: 1 // 0)
    assert run_reporting_errors(lambda: 1 // 0, also=(ZeroDivisionError,)) == 2


@pytest.mark.parametrize(('result', 'code'), [(None, 0), ({'mIoU': 1}, 0), (0, 0), (1, 1)])
def test_exit_code_of_what_is_run(result: object, code: int) -> None:
    assert run_reporting_errors(lambda: result) == code


class Sick(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        raise DataError(f'image {index} is sick')


def test_a_stopped_measurement_is_no_traceback(capsys) -> None:
    def measure() -> dict:
        raise KeyboardInterrupt

    assert run_measurement(measure, 'report') == 130
    assert capsys.readouterr().err == '\ninterrupted; no report was written to report\n'


MODULES = ('mmseg.models.builder', 'torch', 'mmsw.ops.backend', 'torchlike', 'my_heads')


@pytest.mark.parametrize(
    ('asked', 'shown'), [([], ['mmsw.ops.backend', 'torchlike', 'my_heads']), (['all'], MODULES)]
)
def test_warnings_of_others_are_not_printed(asked: list, shown: list, monkeypatch) -> None:
    """They are where ``python -W`` asks for them, and after the tool."""
    monkeypatch.setattr(sys, 'warnoptions', asked)

    def warn() -> None:
        for name in MODULES:
            warnings.warn_explicit(name, UserWarning, 'file.py', 1, module=name)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        assert run_interruptible(warn) == 0
        assert [str(item.message) for item in found] == list(shown)
        warn()
        assert len(found) == len(shown) + len(MODULES)


def test_error_of_a_data_loaders_worker_is_one_line(capsys) -> None:
    assert run_reporting_errors(lambda: list(DataLoader(Sick(), num_workers=1))) == 2
    assert capsys.readouterr().err == 'error: image 0 is sick\n'


def test_unknown_backend_is_one_line(capsys) -> None:
    def run() -> None:
        with use_backend('fast'):
            pass

    assert run_reporting_errors(run) == 2
    assert capsys.readouterr().err.startswith("error: use_backend: unknown backend 'fast'; known")


def test_missing_backend_is_one_line(capsys, monkeypatch, tmp_path: Path) -> None:
    from mmsw.ops import backends

    monkeypatch.setattr(backends, '_default_backend', 'cuda')
    monkeypatch.setattr(backends.cuda_backend, 'unavailable_reason', lambda: 'no GPU is visible')
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    get_flops = importlib.import_module('get_flops')
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmengine'\nmodel = dict(type='ShiftWiseNet')\n")
    assert get_flops.main([str(config), '--shape', '64', '64']) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: use_backend or MMSW_BACKEND: backend 'cuda' cannot run here")
    assert line.count('\n') == 1


CROWD = """
import logging, sys
from mmsw.apis.cli import run_reporting_errors

def run():
    log = logging.getLogger('crowd')
    log.addHandler(logging.StreamHandler(sys.stdout))
    log.warning('first')
    for number in range(20000):
        print('line', number)
        log.warning('line %d', number)
    open(sys.argv[1] if len(sys.argv) > 1 else '/dev/null', 'w').write('done')

sys.exit(run_reporting_errors(run))
"""


def test_output_that_nobody_reads_ends_no_run(tmp_path: Path) -> None:
    witness = tmp_path / 'witness'
    pipe = f'"$PYTHON" -c "$CODE" {witness} | head -n 1; echo "code ${{PIPESTATUS[0]}}"'
    done = run_script(CROWD, 'bash', '-c', pipe)
    assert done.stdout == 'first\ncode 0\n'
    assert done.stderr == ''
    assert witness.read_text() == 'done'


EXIT = """
import atexit, os, sys
import torch.distributed as dist
from mmsw.apis import UsageError
from mmsw.apis.cli import leave, run_reporting_errors

class AbortsTheExit:  # as a thread of torch may
    def __del__(self, abort=os.abort):
        abort()

left_over = AbortsTheExit()
code, grouped, witness = int(sys.argv[1]), sys.argv[2] == 'grouped', sys.argv[3]
atexit.register(lambda: open(witness, 'w').write('exit functions were called'))

def run():
    if grouped:
        dist.init_process_group('gloo', init_method=f'file://{witness}.store', rank=0, world_size=1)
    sys.stdout.write('unflushed')
    if code:
        raise UsageError('wrong')

leave(run_reporting_errors(run))
"""


@pytest.mark.parametrize('code', [0, 2])
def test_exit_code_survives_what_a_process_group_leaves_behind(tmp_path: Path, code: int) -> None:
    witness = tmp_path / 'witness'
    arguments = (sys.executable, '-c', EXIT, str(code))
    done = run_script('', *arguments, 'grouped', str(witness))
    assert done.returncode == code, done.stderr
    assert done.stdout == 'unflushed'
    assert done.stderr == ('error: wrong\n' if code else '')
    assert witness.read_text() == 'exit functions were called'
    if code:
        return
    alone = run_script('', *arguments, 'alone', str(witness))
    assert alone.returncode < 0, 'what is left over is not as harmful as the test believes'


def test_log_of_a_run_survives_in_process(capsys) -> None:
    """The streams are as before afterwards."""
    before = sys.stdout, sys.stderr
    assert run_reporting_errors(lambda: logging.getLogger('x').info('y')) == 0
    assert (sys.stdout, sys.stderr) == before
    assert not torch.distributed.is_initialized()
