"""Processes of a benchmark's runs: started so that they import this mmsw, ended in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import mmsw

_PATIENCE = 20.0  # seconds that a process is given to end


def start(
    command: Sequence[str],
    output: TextIO,
    variables: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen:
    """Start a command that imports the mmsw of this process.

    Args:
        command: Program and arguments.
        output: Where everything goes that it prints.
        variables: Changes to the environment.
        cwd: Folder that it runs in; None for that of this process.
    """
    root = str(Path(mmsw.__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get('PYTHONPATH')])]
    env = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(paths),
        'PYTHONUNBUFFERED': '1',
        **(variables or {}),
    }
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd)


def python(module: str, *arguments: str, nproc: int = 1) -> list[str]:
    """The command that runs a module of this Python, under torchrun if in several processes.

    Args:
        module: Name of the module.
        arguments: Of the command line of the module.
        nproc: Number of processes.
    """
    call = ['-m', module, *arguments]
    if nproc == 1:
        return [sys.executable, *call]
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torchrun = ['-m', 'torch.distributed.run', '--master_addr=127.0.0.1', f'--master_port={port}']
    return [sys.executable, *torchrun, f'--nproc_per_node={nproc}', *call]


def end(process: subprocess.Popen) -> None:
    """End a process if it still runs, and wait for it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def clock(seconds: float) -> str:
    """``1:02:03``, or ``2:03`` within an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{rest:02d}' if hours else f'{minutes}:{rest:02d}'
