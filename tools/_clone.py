"""Imported by every tool: takes mmsw from the clone that the tool lies in, installed or not."""

import contextlib
import importlib.util
import logging
import os
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# The copies in mmsw/.mim of an installed package lie in no clone.
_ROOT = Path(__file__).resolve().parents[1]
if (_ROOT / 'mmsw' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

# What a user may have said about threads of OpenMP that wait for work.
_WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')
_BUSY = 0.25  # share of all cores from which on others are said to compute


def wait_passively() -> None:
    """Let threads of OpenMP sleep while they wait, where others compute and there is no GPU.

    They spin otherwise. That makes a training that has the cores for itself a few per cent faster,
    but two trainings side by side take each other's time and stand almost still. Called before
    torch is imported, whose threads obey what they find then.
    """
    said = any(name in os.environ for name in _WAITING)
    if not said and not _sees_gpu() and _busy_share() > _BUSY:
        os.environ['OMP_WAIT_POLICY'] = 'passive'


def _busy_share(seconds: float = 0.1) -> float:
    """Share of the time of all cores that programs take now; 0 where nobody counts it."""
    try:
        before = _core_times()
        time.sleep(seconds)
        total, idle = (new - old for new, old in zip(_core_times(), before, strict=True))
    except (OSError, ValueError, IndexError):  # not Linux
        return 0.0
    return 1 - idle / total if total else 0.0


def _core_times() -> tuple[int, int]:
    """Ticks of all cores since the start of the machine, and those of them without work."""
    line = Path('/proc/stat').read_text(encoding='ascii').partition('\n')[0]
    ticks = [int(word) for word in line.split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


def _sees_gpu() -> bool:
    """Whether torch may find a GPU: what the drivers of NVIDIA and AMD put into /dev."""
    for name in ('CUDA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES'):
        if os.environ.get(name, '0').strip() in ('', '-1'):
            return False
    return any(Path('/dev', name).exists() for name in ('nvidiactl', 'dxg', 'kfd'))


@contextlib.contextmanager
def toolboxes_needed() -> Iterator[None]:
    """Around the imports of a tool: says how to get what is not installed."""
    log = logging.getLogger('mmsw')
    log.addFilter(_nothing)  # of what is missing, the error speaks
    try:
        yield
    except ModuleNotFoundError as error:
        print(
            f'error: {error}; {_activation()}to get mmsw and its toolboxes, {_remedy()}',
            file=sys.stderr,
        )
        sys.exit(2)
    finally:
        log.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _activation() -> str:
    """What to type where `make setup` has been run, but its environment is not in use."""
    made = [
        stack for stack in ('openmmlab', 'onedl') if (_ROOT / '.venv' / stack / 'ready').is_file()
    ]
    if not made or Path(sys.prefix).parent == _ROOT / '.venv':
        return ''
    return f'run `source {_ROOT}/.venv/{made[0]}/bin/activate` first, or, '


def _remedy() -> str:
    # Read without importing mmsw, which needs what may be missing.
    package = Path(importlib.util.find_spec('mmsw').origin).parent
    return runpy.run_path(str(package / 'install_hint.py'))['how_to_install']('openmmlab')
