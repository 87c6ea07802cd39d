"""Scripts that run in a process of their own, with the operators only, none of OpenMMLab.

Importing torch takes longer than most of the scripts: one process does it, and every script runs in
a fork of that one, which has imported torch and nothing else.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SERVER = f"""
import json, os, sys, tempfile, types
import torch
for line in sys.stdin:
    script, environment = json.loads(line)
    output = tempfile.TemporaryFile()
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        print(json.dumps([code, output.read().decode()]), flush=True)
        continue
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    sys.stdin = open(os.devnull)
    os.environ.clear()
    os.environ.update(environment)
    package = sys.modules['mmsw'] = types.ModuleType('mmsw')
    package.__path__ = [{str(ROOT / 'mmsw')!r}]
    exec(compile(script, '<script>', 'exec'), {{'__name__': '__main__', 'sys': sys}})
    sys.exit()
"""


def run_script(script: str, **variables: str | None) -> tuple[int, str]:
    """Exit code (negative: the signal) and output, errors included, of a script.

    Args:
        script: Python.
        variables: Of the environment, beside those of this process; ``None`` takes one away.
    """
    variables = {'MMSW_BACKEND': None, **variables}
    environment = {k: v for k, v in (os.environ | variables).items() if v is not None}
    server = _server()
    server.stdin.write(json.dumps([script, environment]) + '\n')
    server.stdin.flush()
    code, output = json.loads(server.stdout.readline())
    return code, output


@functools.cache
def _server() -> subprocess.Popen:
    server = subprocess.Popen(
        [sys.executable, '-c', _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)  # it ends with its input
    return server
