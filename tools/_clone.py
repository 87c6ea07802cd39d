"""Imported by every tool: takes mmsw from the clone that the tool lies in, installed or not."""

import contextlib
import importlib.util
import logging
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

# The copies in mmsw/.mim of an installed package lie in no clone.
_ROOT = Path(__file__).resolve().parents[1]
if (_ROOT / 'mmsw' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

# What a user may have said about threads of OpenMP that wait for work.
_WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')
# What is set where nobody has. Empty: nothing.
PASSIVE = {'OMP_WAIT_POLICY': 'passive'}


def wait_passively() -> None:
    """On a machine without a GPU, let threads of OpenMP sleep while they wait for work.

    They spin otherwise, and two trainings side by side on the same cores take each other's time.
    Called before torch is imported, whose threads obey what they find then.
    """
    if not any(name in os.environ for name in _WAITING) and not _sees_gpu():
        os.environ.update(PASSIVE)


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
        sys.exit(f'error: {error}; to get mmsw and its toolboxes, {_remedy()}')
    finally:
        log.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _remedy() -> str:
    # Read without importing mmsw, which needs what may be missing.
    package = Path(importlib.util.find_spec('mmsw').origin).parent
    return runpy.run_path(str(package / 'install_hint.py'))['how_to_install']('openmmlab')
