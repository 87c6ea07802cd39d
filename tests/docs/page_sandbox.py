"""The folder that the blocks of a page, and the notebooks, run in: a checkout with demo data.

What takes long, the demo data and a sparse checkpoint, is made once, in ``work_dirs/docs``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / 'work_dirs' / 'docs'
DATA = Path('data/demo')
CHECKPOINT = Path('work_dirs/demo/pretrained_sparse.pth')
LINKED = ('tools', 'mmsw', 'requirements')
COPIED = ('configs', 'docs')  # a block may write there: the place of a picture is in docs/


def make_sandbox(folder: Path, demo: Path) -> None:
    """Puts into an empty folder what a page finds there.

    Args:
        folder: The folder; it is made.
        demo: What :func:`shared_demo` returned.
    """
    folder.mkdir(parents=True)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    for name in COPIED:
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copytree(demo / DATA, folder / DATA)
    (folder / CHECKPOINT).parent.mkdir(parents=True)
    shutil.copy2(demo / CHECKPOINT, folder / CHECKPOINT)


def shared_demo(folder: Path = SHARED) -> Path:
    """Returns the folder with the demo data and the checkpoint; makes them where they are absent.

    Processes that ask at once wait for the one that makes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / CHECKPOINT).is_file():
            _call('make_demo_data.py', folder / DATA)
            options = ('--data', folder / DATA, '--out', folder / CHECKPOINT, '--epochs', '1')
            _call('make_demo_checkpoint.py', *options)
    return folder


def _call(tool: str, *arguments: object) -> None:
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    env = os.environ | {'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed:\n{done.stdout}{done.stderr}')
