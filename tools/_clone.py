"""Imported by every tool: takes mmsw from the clone that the tool lies in, installed or not."""

import contextlib
import importlib.util
import logging
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

# The copies in mmsw/.mim of an installed package lie in no clone.
_ROOT = Path(__file__).resolve().parents[1]
if (_ROOT / 'mmsw' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))


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
