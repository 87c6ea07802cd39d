"""What the tests of packaging and set-up have in common."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# variables by which a surrounding `make` or user would reach into the calls below
STEERING = {
    'MAKEFLAGS',
    'MFLAGS',
    'STACK',
    'PYTHON',
    'BASE_PYTHON',
    'CXX',
    'TEST_ARGS',
    'MMSW_BUILD_OPS',
}


def run(*command: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    """Runs a command without the variables that steer set-up; output is one text."""
    env = {key: value for key, value in os.environ.items() if key not in STEERING}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**env, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def copy_of_sources(tree: Path) -> Path:
    """A copy of what belongs to the source distribution: no environment, no build products."""
    tree.mkdir()
    ignore = shutil.ignore_patterns('__pycache__')
    for folder in ('mmsw', 'configs', 'tools', 'requirements', 'tests', 'docs'):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignore)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, tree)
    return tree
