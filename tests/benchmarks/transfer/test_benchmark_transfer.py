"""tools/benchmark_transfer.py as a user calls it, stops it and starts it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from study_helpers import ROOT, assert_one_line_and_nothing_left
from transfer_helpers import SMALL, TOOL, call

from mmsw.apis import UsageError
from mmsw.benchmarks import execution
from mmsw.benchmarks.locks import exclusive
from mmsw.benchmarks.runs import result_of
from mmsw.json_file import read_json

PATIENCE = 300  # seconds at most; 20 on an idle machine, but five times that beside other work


@contextmanager
def started(command: Sequence[object], **variables: str) -> Iterator[subprocess.Popen]:
    """A process with a group of its own, none of which is left at the end."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1', **variables}
    with subprocess.Popen(
        [str(part) for part in command],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def read_until(process: subprocess.Popen, text: bytes) -> None:
    """Read the output of a process until a line has the text."""
    read = []
    too_late = threading.Timer(PATIENCE, os.killpg, (process.pid, signal.SIGKILL))
    too_late.start()
    try:
        for line in process.stdout:
            read.append(line)
            if text in line:
                return
    finally:
        too_late.cancel()
    pytest.fail(f'no line has {text!r}: {b"".join(read).decode()}')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--starts', 'sparse,warm'], r"starts must be some of scratch,.*\['warm'\]"),
        (['--starts', 'dense,dense'], 'names one twice'),
        (['--seeds', '0'], 'seeds must be at least 1, got 0'),
        (['--jobs', '0'], 'jobs must be at least 1, got 0'),
        (['--budget', 'ten'], "number of iterations, got 'ten'"),
        (['--budget', 'cls=10'], 'expected one of seg, det before ='),
        (['--budget', 'seg=10', '--task', 'both'], 'no budget for task det'),
        (['--budget', '0'], 'budget of seg must be at least 1'),
        (['--sparsity', '1.5'], 'sparsity must be between 0 and 1, got 1.5'),
        (['--config', 'none.py'], r'none\.py does not exist'),
        (['--config', f'det={SMALL}'], 'is a config for seg, but was given as det='),
        (['--config', SMALL, '--task', 'det'], 'is a config for seg, but was given as det='),
        (['--config', f'seg={SMALL}', '--task', 'det'], '--task det does not go with seg='),
        (['--config', SMALL, SMALL], 'two configs are named upernet_mini_ade20k'),
        (
            ['--config', SMALL, '--starts', 'dense'],
            "start 'dense' needs .*--pretrained-dense PATH",
        ),
        (
            ['--config', SMALL, '--starts', 'sparse', '--pretrained-sparse', 'none.pth'],
            r'checkpoint file none\.pth does not exist',
        ),
        (['--pretrain-iters', '9', '--starts', 'dense'], 'which --starts dense leaves out'),
        (['--pretrain-iters', '0'], 'pretrain iters must be at least 1'),
        (['--config', SMALL, '--starts', 'scratch-long'], 'say how many .* --pretrain-iters N'),
        (['--pretrained-dense', 'r50=a.pth'], 'names no network of this benchmark'),
        (['--starts', 'sparse,sparse-distilled'], 'learns from the runs of the start dense'),
        (['--page', 'none.md'], r'page none\.md does not exist'),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert_one_line_and_nothing_left(TOOL, arguments, message, capsys)


def test_dry_run_does_nothing(mini, data, tmp_path, capsys):
    out = tmp_path / 'out'
    assert call('--config', mini, '--data', data, '--out', out, '--seeds', 2, '--dry-run') == 0
    shown = capsys.readouterr().out
    # 200 each, and those of eight passes over fewer than 64 cutouts from scratch-long
    assert '10 of 10 runs to do, 2016 iterations; nothing was done' in shown
    assert shown.count('(to be pretrained)') == 2
    assert not out.exists()


def test_second_process_in_a_folder_is_refused(tmp_path):
    code = (
        'import fcntl, time; file = open("lock", "w"); fcntl.lockf(file, fcntl.LOCK_EX); '
        'print("held", flush=True); time.sleep(60)'
    )
    other = subprocess.Popen([sys.executable, '-c', code], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b'held\n'
        with pytest.raises(UsageError, match='at work in'), exclusive(tmp_path):
            pass
    finally:
        other.kill()
        other.communicate()
    with exclusive(tmp_path):
        pass


def test_failing_run_is_reported_and_the_others_go_on(
    mini, data, tmp_path, failing_trainings, capsys
):
    out = tmp_path / 'out'
    arguments = ['--config', mini, '--data', data, '--out', out, '--starts', 'scratch']
    assert call(*arguments, '--seeds', '2') == 1
    shown = capsys.readouterr().out
    assert shown.count('FAILED with exit code 3') == 2
    assert f'{out}/runs/seg-mini-scratch-seed1/log.txt:\n    one\n    two\n' in shown
    report = (out / 'report.md').read_text()
    assert '| 0 of 2 | missing' in report
    assert 'FAILED: seg-mini-scratch-seed0, exit code 3' in report
    failed = read_json(out / 'results.json', 'benchmark_transfer')['failed']
    assert [item['name'][-1] for item in failed] == ['0', '1']


@pytest.mark.parametrize('jobs', [1, 2])
def test_runs_side_by_side_have_one_thread_each(mini, data, tmp_path, monkeypatch, jobs):
    code = (
        'import os, pathlib, time; pathlib.Path("begun").touch(); time.sleep(1); '
        'print(os.environ.get("OMP_NUM_THREADS"), len(list(pathlib.Path("..").glob("*/begun")))); '
        'time.sleep(1); pathlib.Path("begun").unlink(); raise SystemExit(3)'
    )

    def command(config: Path, nproc: int) -> list[str]:
        return [sys.executable, '-c', f'import os; os.chdir({str(config.parent)!r}); {code}']

    monkeypatch.setattr(execution, 'command', command)
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    arguments = ['--config', mini, '--data', data, '--out', tmp_path, '--starts', 'scratch']
    assert call(*arguments, '--seeds', '2', '--jobs', jobs) == 1
    said = [log.read_text() for log in sorted(tmp_path.glob('runs/*/log.txt'))]
    assert said == [f'{"1" if jobs > 1 else "5"} {jobs}\n'] * 2


@pytest.mark.slow
@pytest.mark.ci
def test_killed_benchmark_goes_on_with_the_next_unfinished_run(
    mini, data, pretrained, trained, tmp_path, capsys, monkeypatch
):
    # as many threads as the unkilled runs of this process: sums depend on it
    monkeypatch.setenv('OMP_NUM_THREADS', str(torch.get_num_threads()))
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'starts').symlink_to(pretrained)
    command = [sys.executable, TOOL, '--config', mini, '--data', data, '--out', out]
    command += ['--starts', 'scratch,sparse', '--seeds', 1, '--budget', 4, '--evaluations', 2]
    command += ['--pretrain-epochs', 2]
    first, second = (out / 'runs' / f'seg-mini-{s}-seed0' for s in ('scratch', 'sparse'))
    with started(command) as process:
        read_until(process, b'[2/2] seg-mini-sparse-seed0: begins')
    kept = (first / 'result.json').read_bytes(), (first / 'result.json').stat().st_mtime_ns
    assert not (second / 'result.json').exists()

    arguments = command[2:]
    assert call(*arguments) == 0
    shown = capsys.readouterr().out
    assert '1 of 2 runs are finished already' in shown
    assert '[2/2] seg-mini-sparse-seed0: begins' in shown
    assert 'scratch-seed0: begins' not in shown
    now = (first / 'result.json').read_bytes(), (first / 'result.json').stat().st_mtime_ns
    assert now == kept
    for name, folder in (('scratch', first), ('sparse', second)):
        unkilled = result_of(trained[name])
        result = read_json(folder / 'result.json', 'training_result')
        for key in ('digest', 'density_after', 'first_batches'):
            assert result[key] == unkilled[key], (name, key)
        for point, other in zip(result['curve'], unkilled['curve'], strict=True):
            # to the last digit only in one process, see test_stopped_run_goes_on_exactly
            assert point == pytest.approx(other, rel=1e-3, abs=0.1)
    assert (out / 'transfer.png').is_file()

    assert call(*arguments, '--budget', '6') == 2
    assert 'budget 4 there, 6 now' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='no-gpu: there is one')
def test_two_processes_under_torchrun(mini, data, pretrained, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'starts').symlink_to(pretrained)
    arguments = ['--config', mini, '--data', data, '--out', out, '--starts', 'sparse-unmasked']
    arguments += ['--seeds', 1, '--budget', 2, '--evaluations', 1, '--pretrain-epochs', 2]
    assert call(*arguments, '--nproc', 2) == 0
    (run,) = read_json(out / 'results.json', 'benchmark_transfer')['runs']
    assert run['settings']['nproc'] == 2
    assert run['result']['density_after']['not_zero'] == 1.0
    assert 'gloo' in (out / 'runs' / run['name'] / 'log.txt').read_text()


def names(path: Path, text: str) -> bool:
    """Whether the command line of a process holds a text."""
    try:
        return text.encode() in path.read_bytes()
    except OSError:  # it has ended
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self').exists(), reason='proc: no /proc/self here')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_benchmark_ends_its_training_and_reports(mini, data, tmp_path, number):
    out = tmp_path / 'out'
    arguments = ['--config', mini, '--data', data, '--out', out]
    arguments += ['--starts', 'scratch', '--seeds', 1, '--budget', 10000]
    arguments += ['--cfg-options', 'train_dataloader.num_workers=1']
    eager = (  # tells all the time how far it is
        f'import runpy, sys; sys.path.insert(0, {str(TOOL.parent)!r}); '
        'from mmsw.benchmarks import execution; execution._TELL = 0.0; '
        f'runpy.run_path({str(TOOL)!r}, run_name="__main__")'
    )
    with started([sys.executable, '-c', eager, *arguments], OMP_NUM_THREADS='1') as process:
        read_until(process, b': iteration ')
        process.send_signal(number)
        shown = process.communicate(timeout=60)[0].decode()
        left = [path for path in Path('/proc').glob('[0-9]*/cmdline') if names(path, str(out))]
    assert process.returncode == 130, shown
    assert 'start again to go on' in shown
    assert '| 0 of 1 | missing' in (out / 'report.md').read_text()
    assert left == []  # neither the training nor its data loader
